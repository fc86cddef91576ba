"""Awkward programs of the languages with braces, each written as the steps it must fall into."""

import pytest
from splitting import outline

from dreamprm_cli.steps import StreamSplitter
from dreamprm_cli.steps.brace_languages import BRACE_LANGUAGES
from dreamprm_cli.steps.grammar import Grammar

Steps = list[tuple[str, str]]

JAVASCRIPT: Steps = [
    ("imports imports", "import { a,\n  b } from 'x';\nconst fs = require('fs');\nconst MOD = 1e9 + 7\n"),
    (
        "function one",
        "/**\n * doc {\n */\nexport async function one(a, b) {\n"
        '  const r = /[{/]/.test(a) ? `x${ {a: `}`}.a }` : "}";\n  return a / 2 / b;\n}\n\n',
    ),
    ("function two", "// two\nconst two = (x) => {\n  function nested() {}\n  return x\n}\n"),
    ("function three", "const three = x => x * 2\n"),
    ("class Foo", "class Foo extends Bar {\n  #p = 5;\n  static z = 3\n\n"),
    ("method Foo.constructor", "  constructor() { super() }\n\n"),
    ("method Foo.q", "  // get\n  get q() {\n    return this.#p\n  }\n"),
    ("method Foo.gen", "  *gen() {}\n"),
    ("method Foo.arrow", "  arrow = () => {\n    return 1;\n  }\n}\n"),
    ("method Bare.m", "class Bare {\n  async m() {}\n}\n"),
    (
        "code code",
        "module.exports = { one, two };\nif (x) {\n  one()\n} else {\n}\nlines.forEach(function (x) {\n  log(x)\n})\n",
    ),
    ("function main", "function main()\n{\n  log(`\nfunction not_me() {\n`)\n}\n"),
    ("code code", "main()\n"),
    ("function broken", "function broken() {\n  if (x) {\n    y();\n\n"),
    ("function after", "function after() {\n  return 1\n}\n"),
]
TYPESCRIPT: Steps = [
    ("imports imports", "import { A } from './a';\ntype P = Map<string, number>\n"),
    ("class I", "interface I {\n  x: number;\n}\n"),
    ("imports imports", "function over(a: string): string;\nfunction over(a: number): number;\n"),
    ("function over", "function over(a: any): any {\n  return a;\n}\n"),
    ("class Foo", "@Component({\n  selector: 'x',\n})\nexport class Foo<T> {\n  private a: number = 5;\n"),
    ("method Foo.m", "  public async m<U>(u: U): Promise<Map<string, U>> {\n    return new Map();\n  }\n"),
    ("method Foo.f", "  static f = (x: number): number => x + 1;\n}\n"),
    ("function g", "const g = <T,>(x: T): T => {\n  return x;\n};\n"),
    ("class Q", "abstract class Q {\n  abstract z(): void;\n"),
    ("method Q.y", "  y() {\n  }\n}\n"),
]
JAVA: Steps = [
    ("imports imports", "package x;\nimport java.util.*;\n\n"),
    (
        "class Main",
        "/** Main. */\npublic class Main {\n    static final int MOD = 1_000;\n    static int[] dx = {0, 1};\n"
        "    static class FastReader {\n        int next() { return 1; }\n    }\n\n",
    ),
    (
        "method Main.solve",
        '    /**\n     * Solve {\n     */\n    @SuppressWarnings({"unchecked"})\n    @Override\n'
        "    public static <T extends Comparable<T>> int solve(List<T> a,\n            int b) throws Exception {\n"
        '        char c = \'{\', d = \'\\\'\';\n        String s = """\n            } text " {\n            """;\n'
        "        Runnable r = () -> {\n        };\n        return 0;\n    }\n\n",
    ),
    ("method Main.Main", "    Main(int x) {\n        this.x = x;\n    }\n"),
    ("method Main.main", "    public static void main(String[] args)\n    {\n        solve(null, 1);\n    }\n}\n\n"),
    ("class Shape", "interface Shape { double area(); }\n"),
    ("class Color", "enum Color {\n    RED, GREEN;\n"),
    ("method Color.f", "    int f() { return 1; }\n}\n"),
    ("method P.P", "record P(int x) {\n    P {\n    }\n}\n"),
    ("method B.f", "public class B {\n    public void f() {\n        if (x) {\n            y();\n    }\n\n"),
    ("method B.g", "    public void g() {\n    }\n}\n"),
]
CPP: Steps = [
    (
        "imports imports",
        "#include <bits/stdc++.h>\n#define rep(i,a,b) for (int i = (a); i < (b); ++i) {\n#define MULTI \\\n  {{{\n"
        "using namespace std;\ntypedef long long ll;\nconst int N = 1'000'005;\nint a[N], b[] = {1, 2};\nint one{1};\n",
    ),
    ("class Node", "struct Node {\n    int x;\n"),
    ("method Node.Node", "    Node(int v) : x{v}, y(2)\n    {\n    }\n"),
    ("method Node.operator<", "    bool operator<(const Node& o) const {\n        return x < o.x;\n    }\n"),
    ("method Node.~Node", "    ~Node() {}\n"),
    ("class Node", "private:\n    int y;\n    Node(Node&) = delete;\n};\n"),
    ("class Foo", "struct Foo { int q; } foo;\n"),
    ("method Bar.s", "class Bar : public Foo {\npublic:\n    static int s() { return 1; }\n};\n"),
    ("method Bar.m", "void Bar::m() {\n    char c = '{';\n    auto s = R\"x(\nint fake() {\n)x\";\n}\n"),
    (
        "function maxOf",
        "template <typename T>\nT maxOf(const vector<T>& v)\n{\n    rep(i, 0, 5) {\n    }\n    return v[0];\n}\n",
    ),
    ("imports imports", "namespace ns { namespace in {\n"),
    ("function f", '// about f\nstatic inline const char *f() {\n    return "}";\n}\n}}\n'),
    ("function dfs", "auto dfs = [&](int x) {\n    return x;\n};\n"),
    ("imports imports", "int proto(int);\n"),
    ("function main", "int main() {\n    if (1) {\n        x();\n"),
    ("function after", "int after(int y) {\n    return 1;\n}\n"),
]
GO: Steps = [
    (
        "imports imports",
        '// Package main\npackage main\n\nimport (\n\t"fmt"\n)\n\n'
        "const A = 1\nvar x, y int\nvar arr = []int{\n\t1,\n}\n\n",
    ),
    ("class Stack", "type Stack[T any] struct {\n\titems []T\n}\n"),
    ("method Stack.Push", "// Push adds.\nfunc (s *Stack[T]) Push(x T) {\n\ts.items = append(s.items, x)\n}\n"),
    ("function add", "func add(a, b int) int { return a + b }\n"),
    ("function fn", "var fn = func(x int) int {\n\treturn x\n}\n"),
    ("function main", "func main() {\n\ts := `\nfunc fake() {\n`\n\tr := '{'\n\tf := func() {\n\t}\n}\n"),
]
RUST: Steps = [
    ("imports imports", "use std::io::{self, Read};\nuse std::fmt;\n\nconst N: usize = 10;\n"),
    ("class A", "/// doc\n#[derive(Debug)]\npub struct A<'a> {\n    x: &'a str,\n}\n"),
    (
        "method A.new",
        "/* nested /* { */ } */\nimpl<'a> A<'a> {\n    /// new\n    #[inline]\n    pub fn new(x: &'a str) -> Self {\n"
        "        let c = '{'; let d = '\\''; let e = '\\u{7b}';\n        A { x }\n    }\n",
    ),
    ("method A.get", "    fn get(&self) -> &str { self.x }\n}\n"),
    ("method A.fmt", 'impl fmt::Display for A<\'_> {\n    fn fmt(&self) -> R {\n        w!(f, r#"" { "#)\n    }\n}\n'),
    ("class T", "trait T {\n    fn a(&self);\n"),
    ("method T.b", "    fn b(&self) { }\n}\n"),
    ("code code", "macro_rules! m {\n    () => { };\n}\nmod inner {\n"),
    ("function deep", '    pub fn deep() {\n        let s = "multi\nfn fake() {\n";\n    }\n}\n'),
    ("function main", 'fn main() {\n    println!("{}", 1);\n    let x = |a: i32| { a };\n'),
]
PROGRAMS = {"javascript": JAVASCRIPT, "typescript": TYPESCRIPT, "java": JAVA, "cpp": CPP, "go": GO, "rust": RUST}


@pytest.mark.parametrize("language", PROGRAMS)
def test_programs_fall_into_these_steps(language: str) -> None:
    steps = PROGRAMS[language]
    found = outline("".join(source for _, source in steps), language)
    assert [(f"{kind} {name}", source) for kind, name, source in found] == steps


@pytest.mark.parametrize("language", PROGRAMS)
def test_every_language_of_the_table_has_a_program_here(language: str) -> None:
    assert set(PROGRAMS) == set(BRACE_LANGUAGES)
    assert not Grammar(language).parse("").has_error


@pytest.mark.parametrize("language", PROGRAMS)
def test_with_windows_line_ends_the_steps_are_the_same(language: str) -> None:
    steps = [(kind, source.replace("\n", "\r\n")) for kind, source in PROGRAMS[language]]
    found = outline("".join(source for _, source in steps), language)
    assert [(f"{kind} {name}", source) for kind, name, source in found] == steps


def test_a_function_is_given_out_when_the_next_item_begins() -> None:
    splitter = StreamSplitter("cpp")
    assert splitter.feed("int f(int a)\n{\n    return a;\n}\n\n// about g\n") == []
    assert [step.name for step in splitter.feed("template <typename T>\n")] == ["f"]
    assert splitter.feed("T g() {\n    return 1;\n}") == []
    assert [step.name for step in splitter.finish()] == ["g"]


def test_a_method_is_given_out_when_the_next_begins() -> None:
    splitter = StreamSplitter("java")
    assert splitter.feed("class A {\n    void f() {\n    }\n\n    /** g\n     */\n") == []
    assert [step.name for step in splitter.feed("    @Override\n")] == ["A.f"]
    assert [step.name for step in splitter.feed("    void g() {}\n}\nclass B {\n")] == ["A.g"]

"""What the braces languages call their functions, classes and declarations, in the words of their grammars."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_JS_DECLARATIONS = {"import_statement", "lexical_declaration", "variable_declaration", "export_statement"}
_JS_VALUES = {"arrow_function", "function_expression", "generator_function"}
_JS_HOLDERS = {
    "variable_declarator": ("name", "value"),
    "field_definition": ("property", "value"),
    "assignment_expression": ("left", "right"),
}
_JS_THROUGH = {"export_statement", "lexical_declaration", "variable_declaration", "expression_statement"}
_JS_RESTART = (
    r"(?:export\s+)?(?:default\s+)?(?:async\s+)?function\b|(?:export\s+)?(?:default\s+)?(?:abstract\s+)?class\s"
)


@dataclass(frozen=True, slots=True)
class Language:
    """Node types of one grammar, by role.

    functions:    definitions with a body, whatever field names them.
    values:       expressions that are functions; `holders` give them a name: type -> (name field, value field).
    scopes:       classes whose members are steps of their own; their bodies are in `wrap`.
    namespaces:   braces around declarations that count as if they were not there.
    types:        other declarations with braces: steps of kind "class".
    through:      nodes to look into for one of the above.
    declarations: statements without logic of their own, unless `calls` occur in them.
    imports:      those of them that are imports.
    wrap:         what a member has to stand in to be parsed.
    newlines:     the end of a line can end a statement.
    restart:      a line that starts so, no deeper than the statement before, shows that one to be broken.
    """

    functions: frozenset[str]
    scopes: frozenset[str]
    types: frozenset[str]
    through: frozenset[str]
    declarations: frozenset[str]
    imports: frozenset[str]
    wrap: tuple[str, str]
    restart: re.Pattern[str]
    values: frozenset[str] = frozenset()
    holders: dict[str, tuple[str, str]] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset({"call_expression"})
    newlines: bool = False


def _javascript(typed: bool) -> Language:
    scopes = {"class_declaration", "abstract_class_declaration"} if typed else {"class_declaration"}
    through = _JS_THROUGH | {"class_body", "ambient_declaration"} if typed else _JS_THROUGH | {"class_body"}
    types = {"interface_declaration", "enum_declaration"} if typed else set()
    more = {"function_signature", "type_alias_declaration", "ambient_declaration"} if typed else set()
    holders = dict(_JS_HOLDERS)
    if typed:
        holders["public_field_definition"] = ("name", "value")
        del holders["field_definition"]
    return Language(
        functions=frozenset({"function_declaration", "generator_function_declaration", "method_definition"}),
        values=frozenset(_JS_VALUES),
        holders=holders,
        scopes=frozenset(scopes),
        namespaces=frozenset({"internal_module", "module"} if typed else ()),
        types=frozenset(types),
        through=frozenset(through),
        declarations=frozenset(_JS_DECLARATIONS | more),
        imports=frozenset({"import_statement"}),
        calls=frozenset({"call_expression", "new_expression", "await_expression", *_JS_VALUES}),
        wrap=("class _ {", "}"),
        newlines=True,
        restart=re.compile(_JS_RESTART),
    )


BRACE_LANGUAGES = {
    "javascript": _javascript(typed=False),
    "typescript": _javascript(typed=True),
    "java": Language(
        functions=frozenset({"method_declaration", "constructor_declaration", "compact_constructor_declaration"}),
        scopes=frozenset({"class_declaration", "interface_declaration", "enum_declaration", "record_declaration"}),
        types=frozenset({"annotation_type_declaration"}),
        through=frozenset({"class_body"}),
        declarations=frozenset({"import_declaration", "package_declaration", "local_variable_declaration"}),
        imports=frozenset({"import_declaration", "package_declaration"}),
        calls=frozenset({"method_invocation", "object_creation_expression", "lambda_expression"}),
        wrap=("class _ {", "}"),
        restart=re.compile(r"(?:(?:public|private|protected|static|final|abstract|synchronized)\s+)+[^=;]*[({]"),
    ),
    "cpp": Language(
        functions=frozenset({"function_definition"}),
        values=frozenset({"lambda_expression"}),
        holders={"init_declarator": ("declarator", "value")},
        scopes=frozenset({"class_specifier", "struct_specifier", "union_specifier"}),
        namespaces=frozenset({"namespace_definition", "linkage_specification"}),
        types=frozenset({"enum_specifier"}),
        through=frozenset({"template_declaration", "declaration", "field_declaration_list", "field_declaration"}),
        declarations=frozenset(
            {
                "preproc_include", "preproc_def", "preproc_function_def", "preproc_call", "preproc_ifdef", "preproc_if",
                "using_declaration", "alias_declaration", "type_definition", "namespace_alias_definition",
                "declaration", "template_declaration", "static_assert_declaration", "class_specifier",
                "struct_specifier",
            }
        ),
        imports=frozenset({"preproc_include", "using_declaration"}),
        calls=frozenset({"call_expression", "lambda_expression", "function_definition"}),
        wrap=("struct _ {", "};"),
        restart=re.compile(
            r"template\s*<|(?:class|struct|namespace)\s+\w+[^;]*$"
            r"|(?!(?:else|return|if|for|while|switch|do|case|new|delete|throw|goto)\b)"
            r"[A-Za-z_][\w:<>,*&\[\]\s]*[\s*&][\w:~]+\s*\([^;]*$"
        ),
    ),
    "go": Language(
        functions=frozenset({"function_declaration", "method_declaration"}),
        values=frozenset({"func_literal"}),
        holders={"var_spec": ("name", "value")},
        scopes=frozenset(),
        types=frozenset({"type_declaration"}),
        through=frozenset({"var_declaration"}),
        declarations=frozenset(
            {"package_clause", "import_declaration", "const_declaration", "var_declaration", "type_declaration"}
        ),
        imports=frozenset({"package_clause", "import_declaration"}),
        calls=frozenset({"call_expression", "func_literal"}),
        wrap=("", ""),
        newlines=True,
        restart=re.compile(r"func\b|type\s+\w"),
    ),
    "rust": Language(
        functions=frozenset({"function_item"}),
        scopes=frozenset({"impl_item", "trait_item"}),
        namespaces=frozenset({"mod_item", "foreign_mod_item"}),
        types=frozenset({"struct_item", "enum_item", "union_item"}),
        through=frozenset(),
        declarations=frozenset(
            {
                "use_declaration", "extern_crate_declaration", "const_item", "static_item", "type_item", "mod_item",
                "attribute_item", "inner_attribute_item", "function_signature_item",
            }
        ),
        imports=frozenset({"use_declaration", "extern_crate_declaration"}),
        calls=frozenset({"call_expression", "closure_expression", "macro_invocation"}),
        wrap=("", ""),
        restart=re.compile(
            r"(?:pub(?:\([^)]*\))?\s+)?(?:(?:async|const|unsafe)\s+)*(?:fn|impl|struct|enum|trait|mod|use)\b"
        ),
    ),
}  # fmt: skip

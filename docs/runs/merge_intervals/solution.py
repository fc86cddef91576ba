def read_intervals():
    """Read n and then n lines of two integers l r."""
    count = int(input())
    return [tuple(map(int, input().split())) for _ in range(count)]


def is_overlapping(interval1, interval2):
    """Check if two intervals overlap."""
    l1, r1 = interval1
    l2, r2 = interval2
    return max(l1, l2) <= min(r1, r2)


def merge_intervals(intervals):
    """Merge overlapping intervals and return the result."""
    merged = []
    for i in range(len(intervals)):
        if not merged or not is_overlapping(merged[-1], intervals[i]):
            merged.append(intervals[i])
        else:
            merged[-1] = (min(merged[-1][0], intervals[i][0]), max(merged[-1][1], intervals[i][1]))
    return merged


def total_length(merged_intervals):
    """Calculate the total length of the merged intervals."""
    return sum(r - l for l, r in merged_intervals)


def main():
    """Read the input, solve, print the answer."""
    intervals = read_intervals()
    merged = merge_intervals(intervals)
    print(len(merged), total_length(merged))


main()

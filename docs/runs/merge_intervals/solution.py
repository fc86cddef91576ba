def read_intervals():
    """Read n and then n lines of two integers l r."""
    count = int(input())
    return [tuple(map(int, input().split())) for _ in range(count)]


def merge_intervals(intervals):
    """Merge overlapping intervals."""
    intervals.sort(key=lambda x: x[0])
    merged = []
    if not intervals:
        return merged
    current_interval = intervals[0]
    for next_interval in intervals[1:]:
        if next_interval[0] <= current_interval[1]:
            current_interval = (current_interval[0], max(current_interval[1], next_interval[1]))
        else:
            merged.append(current_interval)
            current_interval = next_interval
    merged.append(current_interval)
    return merged


def count_merged_intervals(merged_intervals):
    """Count the number of merged intervals and their total length."""
    total_length = 0
    count = len(merged_intervals)
    for interval in merged_intervals:
        total_length += interval[1] - interval[0]
    return count, total_length


def main():
    """Read the input, solve, print the answer."""
    intervals = read_intervals()
    merged_intervals = merge_intervals(intervals)
    count, total_length = count_merged_intervals(merged_intervals)
    print(count, total_length)


main()

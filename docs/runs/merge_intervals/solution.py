def read_intervals():
    """Read n and then n lines, each with two integers l and r."""
    count = int(input())
    return [tuple(map(int, input().split())) for _ in range(count)]


def is_overlapping(interval1, interval2):
    """Return True if interval1 and interval2 overlap."""
    return interval1[0] <= interval2[1] and interval2[0] <= interval1[1]


def merge_intervals(intervals):
    """Merge overlapping intervals and return the merged list and the total length."""
    merged = []
    intervals.sort()  # Sort intervals by starting point
    current_interval = intervals[0]
    for interval in intervals[1:]:
        if is_overlapping(current_interval, interval):
            # Merge overlapping intervals
            current_interval = (min(current_interval[0], interval[0]), max(current_interval[1], interval[1]))
        else:
            # Add non-overlapping interval to merged list
            merged.append(current_interval)
            current_interval = interval
    # Add the last interval to merged list
    merged.append(current_interval)
    # Calculate total length of merged intervals
    total_length = sum(interval[1] - interval[0] for interval in merged)
    return len(merged), total_length


def main():
    """Read the input, solve, print the answer."""
    intervals = read_intervals()
    num_merged, total_length = merge_intervals(intervals)
    print(num_merged, total_length)


main()

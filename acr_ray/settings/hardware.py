"""What a process that computes should be started with."""

# glibc gives large blocks back to the system at once, and every new tensor of a forward pass faults its pages in
# again: up to twice the time of a small network. These keep up to half a gigabyte at hand instead.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(256 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}

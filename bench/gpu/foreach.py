# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch program does with its gradients before an allreduce, as rows of gpu_bench.

torch_foreach: scale every gradient, take the norm of all, concatenate, cast to bf16.
torch_cat: concatenate only. Each as a CUDA graph of many operations that rotate among sets of
gradients which do not fit into the L2 cache, as bench/gpu/measure.cu does it.

    foreach.py MODEL <elements of each tensor, a line each
"""

import statistics
import sys

ROUNDS = 11
GRAPH_US = 3000


def timed(torch, operation, sets):
    """Microseconds of one operation: of each round."""
    stream = torch.cuda.Stream()
    from_event, to_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def run(repeat):
        from_event.record(stream)
        repeat()
        to_event.record(stream)
        to_event.synchronize()
        return 1000 * from_event.elapsed_time(to_event)

    with torch.cuda.stream(stream):
        for _ in range(3):
            for gradients in sets:
                operation(gradients)
        turn_us = run(lambda: [operation(gradients) for gradients in sets])
        turns = min(int(GRAPH_US / turn_us) + 1, 32)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(turns):
            for gradients in sets:
                operation(gradients)
    with torch.cuda.stream(stream):
        graph.replay()
        return [run(graph.replay) / (turns * len(sets)) for _ in range(ROUNDS)]


def main():
    if len(sys.argv) != 2:
        print("usage: foreach.py MODEL <counts", file=sys.stderr)
        return 2
    counts = [int(line) for line in sys.stdin]
    try:
        import torch
    except ImportError as problem:
        print(f"#note {sys.argv[1]},torch: skipped ({problem})")
        return 0
    if not torch.cuda.is_available():
        print(f"#note {sys.argv[1]},torch: skipped (PyTorch {torch.__version__} sees no GPU)")
        return 0
    size = 4 * sum(counts)
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    sets = [
        [torch.rand(count, device="cuda") * 2 - 1 for count in counts]
        for _ in range(min(max(2 * cache // (2 * size) + 1, 2), 64))
    ]
    torch.cuda.synchronize()

    def scale_norm_cast(gradients):
        torch._foreach_mul_(gradients, -1.0)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        return norm, torch.cat(gradients).to(torch.bfloat16)

    for name, operation in (("torch_foreach", scale_norm_cast), ("torch_cat", torch.cat)):
        times = sorted(timed(torch, operation, sets))
        median = statistics.median(times)
        print(
            f"{sys.argv[1]},{name},{len(counts)},{size},{2 * size},{median:.3f},{times[0]:.3f},"
            f"{times[-1]:.3f},{2 * size / median / 1000:.1f},graph"
        )
    print(f"#set torch {torch.__version__}")
    return 0


sys.exit(main())

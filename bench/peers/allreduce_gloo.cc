// SPDX-License-Identifier: Apache-2.0
// allreduce_gloo.cc - time Gloo allreduce(sum) over a list of message sizes,
// TCP transport.  Start one process per rank; they meet through a directory.
//
//   allreduce_gloo -r rank -w ranks -S store_dir [-i iface | -a address]
//                  [-A ring|bcube|default|hd|ringchunked] [-m segment_bytes]
//                  [-p in|out] [-d f32|f16] [-s sizes] [-t seconds]
//                  [-n max_iters] [-l peer] [-x transport] [-P]
//
//   -A  default, ring, bcube: gloo::allreduce() (what torch.distributed uses);
//       hd, ringchunked: the older persistent classes AllreduceHalvingDoubling
//       and AllreduceRingChunked (always in place)
//   -m  maximum segment size of gloo::allreduce (library default 1 MiB)
//   -L  a file with a number of bytes on each line: one blocking call for each, as in
//       collective_mpi.c
//   -P  do not pin; by default rank r runs on the (r mod ncpus)-th allowed CPU
//
// Output format and timing rules are those of collective_mpi.c.
// This Gloo has no bf16 type, so only f32 and f16 are offered.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gloo/algorithm.h>
#include <gloo/allreduce.h>
#include <gloo/allreduce_halving_doubling.h>
#include <gloo/allreduce_ring_chunked.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/rendezvous/prefix_store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/types.h>

using gloo::AllreduceOptions;

static std::shared_ptr<gloo::rendezvous::Context> ctx;

static double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

static void pin(int rank) {
  cpu_set_t all, one;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  int want = rank % CPU_COUNT(&all);
  for (int c = 0; c < CPU_SETSIZE; c++)
    if (CPU_ISSET(c, &all) && want-- == 0) {
      CPU_ZERO(&one);
      CPU_SET(c, &one);
      sched_setaffinity(0, sizeof one, &one);
      return;
    }
}

static void barrier() {
  gloo::BarrierOptions o(ctx);
  gloo::barrier(o);
}

// Element-wise reduction of a small array of doubles over all ranks.
static void reduce_doubles(double* v, size_t n, bool take_max) {
  AllreduceOptions o(ctx);
  o.setOutput(v, n);
  if (take_max)
    o.setReduceFunction(
        [](void* c, const void* a, const void* b, size_t m) {
          gloo::max<double>(c, a, b, m);
        });
  else
    o.setReduceFunction(
        [](void* c, const void* a, const void* b, size_t m) {
          gloo::min<double>(c, a, b, m);
        });
  gloo::allreduce(o);
}

static double from_rank0(double v) {
  gloo::BroadcastOptions o(ctx);
  o.setOutput(&v, 1);
  o.setRoot(0);
  gloo::broadcast(o);
  return v;
}

// gcc vectorizes this; gloo::sum<float> in the header is the same loop.
template <typename T>
static void sum_fn(void* c, const void* a, const void* b, size_t n) {
  gloo::sum<T>(c, a, b, n);
}

struct Args {
  int rank = -1, ranks = 0;
  std::string store, iface, addr, algo = "default", place = "in", dtype = "f32";
  std::string sizes = "4,64,1k,8k,64k,256k,1m,4m,16m,64m,256m";
  std::string peer = "gloo", transport = "tcp", list;
  size_t segment = 0;
  double target = 0.5;
  long cap = 20000;
  bool pin = true, rewrite = false;
};

// Small integers: exact in both dtypes and in every summation order.
static float pattern(size_t i, int rank) { return (float)(i % 13) + (float)rank; }

template <typename T>
static T* alloc(size_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, 2u << 20, bytes) != 0) {
    fprintf(stderr, "out of memory\n");
    exit(1);
  }
  memset(p, 0, bytes);
  return static_cast<T*>(p);
}

template <typename T>
static void one_size(const Args& a, size_t bytes) {
  size_t n = std::max<size_t>(1, bytes / sizeof(T));
  bytes = n * sizeof(T);
  bool in_place = a.place == "in";
  T* out = alloc<T>(bytes);
  T* in = in_place ? out : alloc<T>(bytes);

  std::unique_ptr<gloo::Algorithm> persistent;
  if (a.algo == "hd")
    persistent.reset(new gloo::AllreduceHalvingDoubling<T>(
        ctx, std::vector<T*>{out}, (int)n));
  else if (a.algo == "ringchunked")
    persistent.reset(new gloo::AllreduceRingChunked<T>(
        ctx, std::vector<T*>{out}, (int)n));

  std::function<void()> op;
  if (persistent) {
    op = [&] { persistent->run(); };
  } else {
    op = [&] {
      AllreduceOptions o(ctx);
      if (!in_place) o.setInput(in, n);
      o.setOutput(out, n);
      o.setReduceFunction(sum_fn<T>);
      if (a.algo == "ring") o.setAlgorithm(AllreduceOptions::Algorithm::RING);
      if (a.algo == "bcube") o.setAlgorithm(AllreduceOptions::Algorithm::BCUBE);
      if (a.segment) o.setMaxSegmentSize(a.segment);
      gloo::allreduce(o);
    };
  }

  // Correctness, once.
  for (size_t i = 0; i < n; i++) in[i] = pattern(i, a.rank);
  op();
  double ok = 1;
  for (size_t i = 0; i < n && ok == 1; i++) {
    float want = 0;
    for (int r = 0; r < a.ranks; r++) want += pattern(i, r);
    T w;
    w = want;
    if (memcmp(&w, &out[i], sizeof w) != 0) ok = 0;
  }
  reduce_doubles(&ok, 1, false);
  // The timed data is -0.0 throughout; see collective_mpi.c.
  for (size_t i = 0; i < n; i++) in[i] = out[i] = -0.0f;

  double est = 0, spent = 0;
  for (int reps = 2;; reps *= 2) {
    barrier();
    double t0 = now();
    for (int i = 0; i < reps; i++) op();
    double dt = from_rank0(now() - t0);
    spent += dt;
    est = dt / reps;
    if (spent > 0.1 * a.target || reps >= a.cap / 4) break;
  }
  long iters = std::min<long>(a.cap, std::max<long>(5, (long)(a.target / est)));
  int batches = (int)std::min<long>(iters, a.rewrite ? 201 : 25);
  long per = a.rewrite ? 1 : iters / batches;

  std::vector<double> tb(batches);
  for (int b = 0; b < batches; b++) {
    if (a.rewrite)
      for (size_t i = 0; i < n; i++) in[i] = -0.0f;
    barrier();
    double t0 = now();
    for (long i = 0; i < per; i++) op();
    tb[b] = (now() - t0) / (double)per;
  }
  reduce_doubles(tb.data(), tb.size(), true);

  if (a.rank == 0) {
    std::sort(tb.begin(), tb.end());
    double med = tb[batches / 2], alg = (double)bytes / med / 1e9;
    printf("%s %s %d %zu %.3f %.6f %.6f %s %s %.3f %ld %s\n", a.peer.c_str(),
           a.transport.c_str(), a.ranks, bytes, med * 1e6, alg,
           alg * 2.0 * (a.ranks - 1) / a.ranks,
           persistent ? "in" : a.place.c_str(), a.dtype.c_str(), tb[0] * 1e6,
           per * batches, ok == 1 ? "ok" : "WRONG");
    fflush(stdout);
  }
  barrier();
  persistent.reset();
  free((void*)out);
  if (!in_place) free((void*)in);
}

// One blocking call for each line of the file, timed together.
static void one_list(const Args& a) {
  std::vector<size_t> counts;
  size_t total = 0, bytes;
  FILE* file = fopen(a.list.c_str(), "r");
  if (!file) {
    perror(a.list.c_str());
    exit(1);
  }
  while (fscanf(file, "%zu", &bytes) == 1) {
    counts.push_back(bytes / 4);
    total += bytes / 4;
  }
  fclose(file);
  float* data = alloc<float>(total * 4);
  auto pass = [&] {
    float* at = data;
    for (size_t n : counts) {
      AllreduceOptions o(ctx);
      o.setOutput(at, n);
      o.setReduceFunction(sum_fn<float>);
      gloo::allreduce(o);
      at += n;
    }
  };
  auto timed = [&] {
    for (size_t i = 0; i < total; i++) data[i] = -0.0f;
    barrier();
    double t0 = now();
    pass();
    return now() - t0;
  };
  for (size_t i = 0; i < total; i++) data[i] = pattern(i, a.rank);
  pass();
  double ok = 1;
  for (size_t i = 0; i < total && ok == 1; i++) {
    float want = 0;
    for (int r = 0; r < a.ranks; r++) want += pattern(i, r);
    if (data[i] != want) ok = 0;
  }
  reduce_doubles(&ok, 1, false);
  int passes = (int)(a.target / from_rank0(timed()));
  passes = std::min(201, std::max(3, passes));
  std::vector<double> times(passes);
  for (auto& t : times) t = timed();
  reduce_doubles(times.data(), times.size(), true);
  if (a.rank == 0) {
    std::sort(times.begin(), times.end());
    double med = times[passes / 2], alg = (double)total * 4 / med / 1e9;
    printf("%s %s %d %zu %.3f %.6f %.6f list f32 %.3f %d %s\n", a.peer.c_str(),
           a.transport.c_str(), a.ranks, total * 4, med * 1e6, alg,
           alg * 2.0 * (a.ranks - 1) / a.ranks, times[0] * 1e6, passes,
           ok == 1 ? "ok" : "WRONG");
    fflush(stdout);
  }
  barrier();
  free((void*)data);
}

int main(int argc, char** argv) {
  Args a;
  int c;
  while ((c = getopt(argc, argv, "r:w:S:i:a:A:m:p:d:s:t:n:l:x:L:PR")) != -1) switch (c) {
      case 'r': a.rank = atoi(optarg); break;
      case 'w': a.ranks = atoi(optarg); break;
      case 'S': a.store = optarg; break;
      case 'i': a.iface = optarg; break;
      case 'a': a.addr = optarg; break;
      case 'A': a.algo = optarg; break;
      case 'm': a.segment = strtoull(optarg, nullptr, 0); break;
      case 'p': a.place = optarg; break;
      case 'd': a.dtype = optarg; break;
      case 's': a.sizes = optarg; break;
      case 't': a.target = atof(optarg); break;
      case 'n': a.cap = atol(optarg); break;
      case 'l': a.peer = optarg; break;
      case 'x': a.transport = optarg; break;
      case 'L': a.list = optarg; break;
      case 'P': a.pin = false; break;
      case 'R': a.rewrite = true; break;
      default: return 2;
    }
  if (a.rank < 0 || a.ranks < 1 || a.store.empty()) {
    fprintf(stderr, "need -r rank -w ranks -S store_dir\n");
    return 2;
  }
  if (a.pin) pin(a.rank);  // before the device thread starts, so it follows

  gloo::transport::tcp::attr attr;
  if (!a.iface.empty()) attr.iface = a.iface;
  attr.hostname = !a.addr.empty() ? a.addr : a.iface.empty() ? "127.0.0.1" : "";
  auto dev = gloo::transport::tcp::CreateDevice(attr);
  gloo::rendezvous::FileStore store(a.store);
  ctx = std::make_shared<gloo::rendezvous::Context>(a.rank, a.ranks);
  ctx->connectFullMesh(store, dev);

  if (!a.list.empty()) {
    one_list(a);
    ctx->closeConnections();
    return 0;
  }
  std::string list = a.sizes;
  char* save = nullptr;
  for (char* t = strtok_r(&list[0], ",", &save); t; t = strtok_r(nullptr, ",", &save)) {
    char* end;
    size_t bytes = strtoull(t, &end, 0);
    if (*end == 'k' || *end == 'K') bytes <<= 10;
    if (*end == 'm' || *end == 'M') bytes <<= 20;
    if (a.dtype == "f16")
      one_size<gloo::float16>(a, bytes);
    else
      one_size<float>(a, bytes);
  }
  ctx->closeConnections();
  return 0;
}

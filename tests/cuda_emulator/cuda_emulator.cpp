#include "cuda_emulator.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

EmulatedDim threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
namespace {

constexpr size_t kStackBytes = 64 << 10;
// From one stack to the next: not a power of two, else all their tops would fall into the same few sets of the caches.
constexpr size_t kStackStride = kStackBytes + 9 * 64;
constexpr int kMaxThreads = 1024;

// ---- switching between fibers ----------------------------------------------------------------------------------------

#if defined(__x86_64__)
// ucontext saves the signal mask with two system calls a switch; what a switch needs is the stack and the registers that
// a called function must preserve.
using Context = void*;
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, .-emulator_switch
.section .note.GNU-stack,"",@progbits
.text
)");
void switch_to(Context* from, Context* to) { emulator_switch(from, *to); }
void make(Context* context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  *context = top;
}
#else
using Context = ucontext_t;
void switch_to(Context* from, Context* to) { swapcontext(from, to); }
void make(Context* context, char* stack, void (*entry)()) {
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
}
#endif

// ---- one block -------------------------------------------------------------------------------------------------------

enum class State { ready, at_barrier, at_exchange, done };

struct Warp {
  int arrived = 0;
  uint64_t given[32];
  uint64_t words[32];
};

struct Block {
  const char* name;
  int threads;
  void (*body)(void*);
  void* arg;
  Context scheduler;
  Context fibers[kMaxThreads];
  State state[kMaxThreads];
  Warp warps[kMaxThreads / 32];
  int current;
};

Block block;
char* stacks;
std::vector<std::pair<void*, size_t>> touched;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s: %s (block %u, thread %u)\n", block.name, what, blockIdx.x, threadIdx.x);
  std::abort();
}

void wait(State state) {
  const int thread = block.current;
  block.state[thread] = state;
  switch_to(&block.fibers[thread], &block.scheduler);
}

void entry() {
  block.body(block.arg);
  const int thread = block.current;
  if (block.warps[thread / 32].arrived != 0) fail("a thread leaves while its warp waits for it");
  block.state[thread] = State::done;
  switch_to(&block.fibers[thread], &block.scheduler);
}

bool reverse_order() {
  const char* order = std::getenv("RECSPARSE_EMULATOR_ORDER");
  return order && std::strcmp(order, "reverse") == 0;
}

void run_block(bool reverse) {
  for (int t = 0; t < block.threads; ++t) {
    make(&block.fibers[t], stacks + t * kStackStride, entry);
    block.state[t] = State::ready;
  }
  for (int done = 0; done < block.threads;) {
    bool progress = false;
    for (int i = 0; i < block.threads; ++i) {
      const int t = reverse ? block.threads - 1 - i : i;
      if (block.state[t] != State::ready) continue;
      block.current = t;
      threadIdx.x = static_cast<unsigned>(t);
      switch_to(&block.scheduler, &block.fibers[t]);
      progress = true;
    }
    done = 0;
    int waiting = 0;
    for (int t = 0; t < block.threads; ++t) {
      done += block.state[t] == State::done;
      waiting += block.state[t] == State::at_barrier;
    }
    if (waiting > 0 && waiting + done == block.threads) {
      if (done > 0) fail("some threads have left, others wait at __syncthreads");
      for (int t = 0; t < block.threads; ++t) block.state[t] = State::ready;
      progress = true;
    }
    if (!progress && done < block.threads) fail("deadlock: the threads of a warp are at different places");
  }
}

}  // namespace

void check_mask(unsigned mask) {
  if (mask != 0xffffffffu) fail("a collective of a part of a warp");
}

void barrier() { wait(State::at_barrier); }

const uint64_t* exchange(uint64_t word) {
  const int thread = block.current, first = thread / 32 * 32;
  Warp& warp = block.warps[thread / 32];
  warp.given[thread % 32] = word;
  if (++warp.arrived < 32) {
    wait(State::at_exchange);
    return warp.words;
  }
  // The last to arrive: all have read the words of the exchange before, because they are here.
  std::memcpy(warp.words, warp.given, sizeof(warp.words));
  warp.arrived = 0;
  for (int t = first; t < first + 32; ++t) block.state[t] = State::ready;
  return warp.words;
}

void touch_shared(void* region, size_t bytes) {
  for (const auto& [known, size] : touched) {
    if (known == region) return;
  }
  std::memset(region, 0xa5, bytes);
  touched.emplace_back(region, bytes);
}

void run_grid(const char* name, int64_t blocks, int threads, void (*body)(void*), void* arg) {
  block.name = name;
  if (threads <= 0 || threads > kMaxThreads || threads % 32 != 0) fail("a block of whole warps is expected");
  if (blocks <= 0 || blocks > INT32_MAX) fail("a grid of 1 .. 2^31 - 1 blocks is expected");
  if (!stacks) {
    void* memory = mmap(nullptr, kMaxThreads * kStackStride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the stacks");
    stacks = static_cast<char*>(memory);
  }
  block.threads = threads;
  block.body = body;
  block.arg = arg;
  blockDim.x = static_cast<unsigned>(threads);
  gridDim.x = static_cast<unsigned>(blocks);
  const bool reverse = reverse_order();
  for (int64_t b = 0; b < blocks; ++b) {
    blockIdx.x = static_cast<unsigned>(b);
    run_block(reverse);
    touched.clear();
  }
}

}  // namespace emulator

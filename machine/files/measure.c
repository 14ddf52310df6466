// Measures on the running machine the costs that a machine file needs and that user space can see. Build and run:
//   cc -O2 -pthread -o measure measure.c && ./measure
// Every figure is in ns, the median of many short batches (fault and switch: the lowest), so run it on a quiet machine
// and several times: in a guest the host moves vCPUs between its threads, and the transfer changes class when it does.
//
// transfer       one CAS each way between two pinned threads, halved: the method of the core-to-core matrices
// load           dependent loads in random order over 16 KiB (L1) and over 1 GiB in huge pages (memory)
// atomic         locked add on an owned line, back to back
// syscall        getppid, entry and exit
// page fault     load from a page never written, whose page table exists: entry, zero page mapped, exit
// switch         pipe ping-pong of two processes on one CPU, one way, its two pipe calls taken off
// shootdown      expedited membarrier with a sibling thread spinning elsewhere: IPI out, handler, acknowledgement back
// slowdown       time of a loop of independent multiplies with a CPU busy with the same over without
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 3000, ROUNDS = 500 };

static _Alignas(128) atomic_int turn;
static _Alignas(128) atomic_int stop;
static _Alignas(128) atomic_long counter;
static double samples[BATCHES];

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set)) perror("sched_setaffinity"), exit(1);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void await(int mine, int theirs) {
  int expected = mine;
  while (!atomic_compare_exchange_strong(&turn, &expected, theirs)) {
    if (atomic_load_explicit(&stop, memory_order_relaxed)) return;
    expected = mine;
  }
}

static void *pong(void *arg) {
  pin((int)(intptr_t)arg);
  while (!atomic_load_explicit(&stop, memory_order_relaxed)) await(1, 0);
  return 0;
}

static void multiplies(void) {
  uint64_t a = 1, b = 1, c = 1, d = 1;
  for (int i = 0; i < 1000; i++)
    __asm__ volatile("imul %0, %0\n\timul %1, %1\n\timul %2, %2\n\timul %3, %3"
                     : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
}

static void *spin(void *arg) {
  pin((int)(intptr_t)arg);
  while (!atomic_load_explicit(&stop, memory_order_relaxed)) multiplies();
  return 0;
}

static double median(void (*body)(void), int rounds, int batches) {
  for (int b = 0; b < batches; b++) {
    double start = now_ns();
    for (int i = 0; i < rounds; i++) body();
    samples[b] = (now_ns() - start) / rounds;
  }
  qsort(samples, batches, sizeof *samples, ascending);
  return samples[batches / 2];
}

static void one_atomic(void) { atomic_fetch_add(&counter, 1); }
static void one_syscall(void) { syscall(SYS_getppid); }
static void one_barrier(void) { syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0); }
static double read_fault(void) {
  enum { PAGES = 512 };
  double low = 1e18;
  char *area = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(area, PAGES * 4096, MADV_NOHUGEPAGE);
  for (int b = 0; b < 200; b++) {
    double start = now_ns();
    for (int i = 0; i < PAGES; i++) (void)*(volatile char *)(area + i * 4096);
    double each = (now_ns() - start) / PAGES;
    if (each < low) low = each;
    madvise(area, PAGES * 4096, MADV_DONTNEED);
  }
  munmap(area, PAGES * 4096);
  return low;
}

// A random cycle through one pointer per 64-byte line (Sattolo's shuffle), followed for a million loads.
static double load(size_t bytes) {
  size_t lines = bytes / 64;
  char *area = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(area, bytes, MADV_HUGEPAGE);
  for (size_t i = 0; i < lines; i++) *(void **)(area + i * 64) = area + i * 64;
  for (size_t i = lines - 1; i > 0; i--) {
    void **a = (void **)(area + i * 64), **b = (void **)(area + (size_t)random() % i * 64);
    void *kept = *a;
    *a = *b, *b = kept;
  }
  void *volatile *at = (void *volatile *)area;
  double low = 1e18;
  for (int b = 0; b < 20; b++) {
    double start = now_ns();
    for (int i = 0; i < 1000000; i++) at = (void *volatile *)*at;
    double each = (now_ns() - start) / 1000000;
    if (each < low) low = each;
  }
  munmap(area, bytes);
  return low;
}

static void transfers(int a, int b) {
  pthread_t other;
  atomic_store(&stop, 0), atomic_store(&turn, 0);
  pthread_create(&other, 0, pong, (void *)(intptr_t)b);
  pin(a);
  await(0, 1);
  for (int n = 0; n < BATCHES; n++) {
    double start = now_ns();
    for (int i = 0; i < ROUNDS; i++) await(0, 1);
    samples[n] = (now_ns() - start) / ROUNDS / 2;
  }
  atomic_store(&stop, 1);
  pthread_join(other, 0);
  qsort(samples, BATCHES, sizeof *samples, ascending);
  printf("transfer %d-%d lowest %.1f p10 %.1f p50 %.1f p90 %.1f\n", a, b, samples[0],
         samples[BATCHES / 10], samples[BATCHES / 2], samples[BATCHES * 9 / 10]);
}

static double pipe_round(int self) {
  int out[2], back[2];
  char byte = 0;
  if (pipe(out) || pipe(back)) perror("pipe"), exit(1);
  pid_t child = self ? 0 : fork();
  if (!self && child == 0)
    for (;;)
      if (read(out[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1) _exit(0);
  double low = 1e18;
  for (int b = 0; b < 400; b++) {
    double start = now_ns();
    for (int i = 0; i < 50; i++)
      if (write(out[1], &byte, 1) != 1 || read(self ? out[0] : back[0], &byte, 1) != 1) exit(1);
    double each = (now_ns() - start) / 50;
    if (each < low) low = each;
  }
  if (!self) kill(child, SIGKILL), waitpid(child, 0, 0);
  close(out[0]), close(out[1]), close(back[0]), close(back[1]);
  return low;
}

static double with_busy(int cpu, void (*body)(void), int rounds, int batches) {
  pthread_t other;
  atomic_store(&stop, 0);
  pthread_create(&other, 0, spin, (void *)(intptr_t)cpu);
  usleep(10000);
  double each = median(body, rounds, batches);
  atomic_store(&stop, 1);
  pthread_join(other, 0);
  return each;
}

int main(void) {
  int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
  for (int b = 1; b < cpus; b++) transfers(0, b);
  pin(0);
  printf("load L1 %.2f memory %.1f\n", load(1 << 14), load(1 << 30));
  double empty = median(one_syscall, 1000, 300);
  printf("atomic %.2f\nsyscall %.1f\n", median(one_atomic, 1000, 300), empty);
  printf("page fault %.1f\n", read_fault());
  double alone = pipe_round(1), both = pipe_round(0);
  printf("switch %.1f (round trip %.1f, pipe calls alone %.1f)\n", both / 2 - alone, both, alone);
  syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
  double quiet = median(one_barrier, 50, 300), single = median(multiplies, 100, 300);
  for (int b = 1; b < cpus; b++) {
    double call = with_busy(b, one_barrier, 1, BATCHES);
    printf("shootdown 0-%d p10 %.0f p50 %.0f p90 %.0f (call without an IPI %.1f)\n", b,
           samples[BATCHES / 10] - quiet, call - quiet, samples[BATCHES * 9 / 10] - quiet, quiet);
    printf("slowdown 0-%d %.2f\n", b, with_busy(b, multiplies, 100, 600) / single);
  }
  return 0;
}

// Calls every system call with arguments that make no sense, from several threads of several
// processes, for a few seconds: garbage SEED SECONDS THREADS. The machine has to survive it, and
// what runs afterwards has to find it in order. The seed decides what is called with what; who
// comes first is the machine's affair.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 3
#define PAGES 64
#define LAST_CALL 460

static char *memory; // PAGES pages, then one that is not mapped
static char *constant; // a page that cannot be written
static const char *paths[] = {
	"/", "/tmp", "/tmp/a", "/tmp/b", "/tmp/a/b", "/tmp/c", "tmp/d", "/tmp/../tmp/a", "/tmp/a/../..",
	"/proc", "/proc/self", "/proc/self/maps", "/proc/self/smaps", "/proc/self/pagemap",
	"/proc/self/fd", "/proc/self/fd/3", "/proc/self/fd/5", "/proc/self/fd/9", "/proc/self/task",
	"/proc/new", "/sys", "/sys/devices/system/cpu/online", "/dev", "/dev/null", "/dev/zero",
	"/dev/urandom", "", ".", "..", "a", "/disk/a", "/proc/meminfo", "/proc/self/stat",
};
#define PATHS (sizeof(paths) / sizeof(*paths))

static uint64_t next(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

// An argument: a small number, an address of one kind or another, a size, or anything.
static uint64_t argument(uint64_t *state)
{
	static const uint64_t odd[] = {
		-1, -2, -100, -4096, INT64_MIN, INT64_MAX, INT32_MAX, (uint32_t)INT32_MIN, UINT32_MAX,
		0x7ffffffff000, 0x7fffffffeff8, 0x7fffffffe000, 0xffff888000000000, 0xffffffff80200000,
		0xffffc20000000000, 0x800000000000, 0xfffffffffffffff8, 0xfffffffffffff000,
		0x100000000, 0x7ffff000, 0x3fffffff, 1ull << 40, 4096, 65536, 65537, 1 << 20,
	};
	uint64_t r = next(state), kind = r % 32, rest = r >> 8;
	if (kind < 7)
		return rest % 16;
	if (kind < 9)
		return rest % 300;
	if (kind < 18)
		return (uint64_t)memory + rest % (PAGES * 4096) / 8 * 8;
	if (kind < 19)
		return (uint64_t)memory + PAGES * 4096 - rest % 64;
	if (kind < 20)
		return (uint64_t)constant + rest % 4096;
	if (kind < 24)
		return (uint64_t)paths[rest % PATHS];
	if (kind < 28)
		return odd[rest % (sizeof(odd) / sizeof(*odd))];
	if (kind < 30)
		return 1ull << rest % 64;
	return kind == 30 ? next(state) : rest & 0xffffffff;
}

// Fills memory with what a call may take for a structure.
static void scatter(uint64_t *state)
{
	uint64_t *words = (uint64_t *)memory;
	for (int i = 0; i < 64; i++)
		words[next(state) % (PAGES * 512)] = argument(state);
}

// A number of a process or thread that a signal may be for: none of the others'.
static uint64_t target(uint64_t *state)
{
	switch (next(state) % 5) {
	case 0: return getpid();
	case 1: return syscall(SYS_gettid);
	case 2: return next(state) | 1 << 30;
	case 3: return -(next(state) % 100 + (1 << 30));
	default: return INT32_MIN;
	}
}

static void call(uint64_t *state)
{
	uint64_t number = next(state) % LAST_CALL, a[6];
	for (int i = 0; i < 6; i++)
		a[i] = argument(state);
	switch (number) {
	case SYS_setrlimit: case SYS_prlimit64:
	case SYS_exit: case SYS_exit_group: case SYS_vfork: case SYS_clone3: case SYS_reboot:
		return;
	case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_rt_sigqueueinfo:
	case SYS_rt_tgsigqueueinfo:
		// Most of them would be the end too soon.
		if (next(state) % 16)
			a[1] = a[2] = 0;
		a[0] = target(state);
		if (number == SYS_tgkill || number == SYS_rt_tgsigqueueinfo)
			a[1] = target(state);
		break;
	case SYS_fork: case SYS_clone:
		if (next(state) % 8)
			return;
		if (number == SYS_clone && next(state) % 2) {
			// Without a stack of its own the new one tramples on this one's.
			syscall(SYS_clone, a[0] & ~CLONE_VM, 0, a[2], a[3], a[4]);
			return;
		}
		if (syscall(SYS_fork) == 0) {
			for (int i = 0; i < 50; i++)
				call(state);
			_exit(0);
		}
		return;
	case SYS_execve:
		if (next(state) % 4)
			return;
		break;
	case SYS_rt_sigreturn:
		if (next(state) % 16)
			return;
		break;
	case SYS_pause: case SYS_rt_sigsuspend:
		if (next(state) % 16)
			return;
		break;
	case SYS_munmap: case SYS_mremap: case SYS_mprotect: case SYS_brk: case SYS_mmap:
	case SYS_arch_prctl:
		// More often than not on what is not needed for the next call.
		if (next(state) % 4)
			a[0] = (uint64_t)constant + (8 + next(state) % 16) * 4096;
		break;
	}
	syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void *loop(void *seed)
{
	uint64_t state = (uint64_t)seed;
	for (;;) {
		scatter(&state);
		for (int i = 0; i < 20; i++)
			call(&state);
	}
}

// Files of every kind, by the numbers 0 to 23 or so.
static void open_files(void)
{
	int two[2];
	close(0), close(1), close(2);
	open("/dev/null", O_RDWR), open("/dev/zero", O_RDWR), open("/tmp", O_RDONLY);
	pipe(two), pipe2(two, O_NONBLOCK);
	socketpair(AF_UNIX, SOCK_STREAM, 0, two);
	socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, two);
	eventfd(3, EFD_NONBLOCK), timerfd_create(CLOCK_MONOTONIC, 0), epoll_create1(0);
	ftruncate(syscall(SYS_memfd_create, "m", 0), 100000);
	open("/tmp/a", O_RDWR | O_CREAT, 0700), open("/tmp/a", O_RDONLY);
	open("/proc/self/maps", O_RDONLY), open("/proc/self/pagemap", O_RDONLY);
	open("/disk/a", O_RDWR | O_CREAT, 0600);
}

static void work(uint64_t seed, int threads)
{
	// Enough for what is here: that memory is out has tests of its own, which take longer.
	struct rlimit room = { 48 << 20, 48 << 20 };
	setpgid(0, 0);
	setrlimit(RLIMIT_AS, &room);
	open_files();
	memory = mmap(0, (PAGES + 1) * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(memory + PAGES * 4096, 4096);
	constant = mmap(0, 32 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;
	for (int i = 1; i < threads; i++)
		pthread_create(&thread, 0, loop, (void *)(seed + i));
	loop((void *)seed);
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void clean(void)
{
	static const char *made[] = { "/tmp/a/b", "/tmp/a", "/tmp/b", "/tmp/c", "/tmp/d", "/disk/a" };
	for (int i = 0; i < 6; i++)
		if (unlink(made[i]) && rmdir(made[i])) {
		}
}

static int same(const char *what, int is_right)
{
	if (!is_right)
		printf("%s: wrong, %s\n", what, strerror(errno));
	return !is_right;
}

// What every program expects of a machine.
static int check(void)
{
	int wrong = 0, two[2], status = 0;
	char text[64] = "";
	clean();
	// What there was before may have another name by now, or none.
	mkdir("/after", 0700);
	int file = open("/after/file", O_RDWR | O_CREAT | O_EXCL, 0600);
	wrong += same("file", write(file, "hello", 5) == 5 && pread(file, text, 9, 0) == 5);
	wrong += same("content", !strcmp(text, "hello") && !unlink("/after/file"));
	char *pages = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	wrong += same("memory", pages != MAP_FAILED);
	for (int i = 0; i < 256; i++)
		pages[i * 4096] = i;
	wrong += same("pipe", !pipe(two));
	pid_t child = fork();
	if (child == 0) {
		int sum = 0;
		for (int i = 0; i < 256; i++)
			sum += (unsigned char)pages[i * 4096];
		write(two[1], &sum, sizeof(sum));
		_exit(7);
	}
	int sum = 0;
	wrong += same("child's sum", read(two[0], &sum, sizeof(sum)) == sizeof(sum) && sum == 32640);
	wrong += same("wait", waitpid(child, &status, 0) == child && status == 7 << 8);
	memset(text, 0, sizeof(text));
	file = open("/proc/pagefault/check", O_RDONLY);
	wrong += same("invariants", file < 0 || read(file, text, sizeof(text) - 1) > 0);
	wrong += same(text, file < 0 || !strcmp(text, "ok\n"));
	return wrong;
}

int main(int count, char **arguments)
{
	uint64_t seed = strtoull(arguments[1], 0, 0);
	double end = now() + atof(arguments[2]);
	int threads = atoi(arguments[3]);
	pid_t workers[WORKERS] = { 0 };
	double until[WORKERS];
	int started = 0;
	while (now() < end) {
		for (int i = 0; i < WORKERS; i++) {
			if (workers[i] && now() > until[i])
				kill(workers[i], SIGKILL);
			if (workers[i] && waitpid(workers[i], 0, WNOHANG) == 0)
				continue;
			clean();
			pid_t child = fork();
			if (child == 0)
				work(seed + 1000 * started, threads);
			workers[i] = child > 0 ? child : 0;
			until[i] = now() + 0.3;
			started++;
		}
		usleep(10000);
	}
	// Some have children of their own by now, and some of these have no parent any more.
	int ended;
	while (kill(-1, SIGKILL), (ended = waitpid(-1, 0, WNOHANG)) >= 0)
		if (ended == 0)
			usleep(10000);
	if (started < WORKERS)
		printf("only %d workers\n", started);
	int wrong = check();
	printf("%d wrong\n", wrong);
	return wrong != 0;
}

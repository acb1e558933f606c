/* What mmap and its relatives check, one line for each call: its result is the host's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif

static const size_t P = 4096;

static const char *err(long result) { return result == -1 ? strerrorname_np(errno) : "ok"; }
static void say(const char *what, long result) { printf("%s: %s\n", what, err(result)); }

static void *map(size_t n, int flags) { return mmap(0, n, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0); }

static void maps(const char *what, size_t n, int protection, int flags, int fd, off_t offset) {
    char *p = mmap(0, n, protection, flags, fd, offset);
    if (p == MAP_FAILED) {
        printf("mmap %s: %s\n", what, strerrorname_np(errno));
        return;
    }
    printf("mmap %s: ok%s\n", what, (uintptr_t)p >> 32 ? "" : ", low");
    munmap(p, n);
}

static void types_and_flags(void) {
    int file = memfd_create("file", 0), path = open("/dev/null", O_PATH), reader = open("/dev/zero", O_RDONLY);
    int writer = open("/dev/zero", O_WRONLY), ends[2], directory = open("/", O_RDONLY);
    pipe(ends);
    ftruncate(file, 4 * P);
    int rw = PROT_READ | PROT_WRITE, a = MAP_ANONYMOUS;
    maps("of neither type", P, rw, a, -1, 0);
    maps("of both types", P, rw, a | MAP_SHARED | MAP_PRIVATE, -1, 0);
    maps("file of neither type", P, rw, 0, file, 0);
    maps("file of both types", P, rw, MAP_SHARED | MAP_PRIVATE, file, 0);
    maps("type 4", P, rw, a | 4, -1, 0);
    maps("type 7", P, rw, a | 7, -1, 0);
    maps("type 12", P, rw, a | 12, -1, 0);
    maps("droppable file", P, rw, MAP_DROPPABLE, file, 0);
    maps("validated, anonymous", P, rw, a | MAP_SHARED_VALIDATE, -1, 0);
    maps("validated", P, rw, MAP_SHARED_VALIDATE, file, 0);
    maps("validated, known flags", P, rw, MAP_SHARED_VALIDATE | MAP_POPULATE | MAP_NORESERVE, file, 0);
    maps("validated, synchronous", P, rw, MAP_SHARED_VALIDATE | MAP_SYNC, file, 0);
    maps("validated, unknown flag", P, rw, MAP_SHARED_VALIDATE | 1 << 28, file, 0);
    maps("shared, unknown flag", P, rw, MAP_SHARED | 1 << 28, file, 0);
    maps("private, unknown flag", P, rw, a | MAP_PRIVATE | 1 << 28, -1, 0);
    maps("below 4 GiB", P, rw, a | MAP_PRIVATE | MAP_32BIT, -1, 0);
    maps("too much below 4 GiB", 3u << 30, rw, a | MAP_PRIVATE | MAP_32BIT | MAP_NORESERVE, -1, 0);
    maps("of a path", P, PROT_READ, MAP_PRIVATE, path, 0);
    maps("of no file", P, PROT_READ, MAP_PRIVATE, 99, 0);
    maps("of a pipe", P, PROT_READ, MAP_PRIVATE, ends[0], 0);
    maps("of a directory", P, PROT_READ, MAP_PRIVATE, directory, 0);
    maps("growing down", P, rw, a | MAP_PRIVATE | MAP_GROWSDOWN, -1, 0);
    maps("growing down, shared", P, rw, a | MAP_SHARED | MAP_GROWSDOWN, -1, 0);
    maps("growing down, of a file", P, rw, MAP_PRIVATE | MAP_GROWSDOWN, file, 0);
    maps("anonymous with an offset", P, rw, a | MAP_PRIVATE, -1, 4 * P);
    maps("anonymous with an odd offset", P, rw, a | MAP_PRIVATE, -1, 5);
    maps("with an odd offset", P, rw, MAP_PRIVATE, file, 5);
    maps("with huge pages of a file", P, rw, MAP_PRIVATE | MAP_HUGETLB, file, 0);
    maps("with protection 0x100", P, 0x100 | rw, a | MAP_PRIVATE, -1, 0);
    maps("of nothing", 0, rw, a | MAP_PRIVATE, -1, 0);
    maps("of nothing of no file", 0, rw, MAP_PRIVATE, 99, 0);
    char *odd = mmap((void *)1, P, rw, a | MAP_PRIVATE | MAP_FIXED, -1, 0);
    say("mmap at 1", (long)odd);
    say("mmap at 1, not replacing", (long)mmap((void *)1, P, rw, a | MAP_PRIVATE | MAP_FIXED_NOREPLACE, -1, 0));
    say("mmap at 1 too long", (long)mmap((void *)1, 1ul << 47, rw, a | MAP_PRIVATE | MAP_FIXED, -1, 0));

    char *zero = mmap(0, 3 * P, rw, MAP_PRIVATE, reader, 0);
    say("zeros, private", (long)zero);
    if (zero != MAP_FAILED) { zero[P] = 5; printf("%d %d\n", zero[0], zero[P]); munmap(zero, 3 * P); }
    say("zeros, shared, not open for writing", (long)mmap(0, P, rw, MAP_SHARED, reader, 0));
    say("zeros, not open for reading", (long)mmap(0, P, PROT_READ, MAP_PRIVATE, writer, 0));
    int both = open("/dev/zero", O_RDWR);
    zero = mmap(0, 2 * P, rw, MAP_SHARED, both, 0);
    char *again = mmap(0, 2 * P, rw, MAP_SHARED, both, 0);
    say("zeros, shared", (long)zero);
    if (zero != MAP_FAILED) {
        zero[0] = 7;
        if (fork() == 0) { zero[1] = zero[0] + 1; _exit(0); }
        wait(0);
        printf("%d %d, elsewhere %d\n", zero[0], zero[1], again[0]);
        say("zeros, advised away", madvise(zero, P, MADV_REMOVE));
    }
    printf("nothing: %s\n", err((long)mmap(0, P, PROT_READ, MAP_PRIVATE, open("/dev/null", O_RDWR), 0)));
    for (int fd = 3; fd < 20; fd++) close(fd);
}

static void protections(void) {
    char *p = map(4 * P, MAP_PRIVATE);
    say("mprotect 0x10", mprotect(p, P, 0x10));
    say("mprotect 8", mprotect(p, P, 8));
    say("mprotect growing down", mprotect(p, P, PROT_READ | PROT_GROWSDOWN));
    say("mprotect growing up", mprotect(p, P, PROT_READ | PROT_GROWSUP));
    say("mprotect growing both ways", mprotect(p, P, PROT_READ | PROT_GROWSUP | PROT_GROWSDOWN));
    char *stack = mmap(0, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
    say("mprotect of a stack", mprotect(stack + 2 * P, P, PROT_READ | PROT_GROWSDOWN));
    munmap(p, 4 * P);
    munmap(stack, 4 * P);
}

static void synchronised(void) {
    char *p = map(3 * P, MAP_PRIVATE);
    munmap(p + P, P);
    static const int all[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 12 };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        printf("msync %d: %s", all[i], err(msync(p, P, all[i])));
        printf(" hole %s", err(msync(p, 3 * P, all[i])));
        printf(" odd %s", err(msync(p + 1, P, all[i])));
        printf(" none %s\n", err(msync(p + P, 0, all[i])));
    }
    mlock(p, P);
    say("msync, locked, invalidated", msync(p, P, MS_INVALIDATE));
    say("msync, locked, invalidated later", msync(p, P, MS_INVALIDATE | MS_ASYNC));
    say("msync, locked", msync(p, P, MS_SYNC));
    munmap(p, 3 * P);
}

static void nonlinear(void) {
    int file = memfd_create("pages", 0);
    ftruncate(file, 4 * P);
    char *p = mmap(0, 4 * P, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    for (int i = 0; i < 4; i++) p[i * P] = i;
    say("remap_file_pages", remap_file_pages(p, P, 0, 2, 0));
    say("remap_file_pages with a protection", remap_file_pages(p + P, P, PROT_READ, 3, 0));
    say("remap_file_pages, not waiting", remap_file_pages(p + P, P, 0, 3, MAP_NONBLOCK));
    say("remap_file_pages with a flag", remap_file_pages(p + 2 * P, P, 0, 3, 1 << 28));
    printf("%d %d %d %d\n", p[0], p[P], p[2 * P], p[3 * P]);
    munmap(p, 4 * P);
    close(file);
}

static void advised(void) {
    for (int advice = -1; advice < 30; advice++) {
        /* What the host's configuration or its hardware decide. */
        if (advice >= 12 && advice <= 15) continue;
        char *p = map(8 * P, MAP_PRIVATE);
        p[0] = 1;
        munmap(p + 4 * P, P);
        printf("advice %d: hole %s", advice, err(madvise(p, 8 * P, advice)));
        printf(", odd %s", err(madvise(p + 1, P, advice)));
        printf(", nothing %s", err(madvise(p, 0, advice)));
        printf(", some %s", err(madvise(p, 2 * P, advice)));
        printf(", wrapping %s", err(madvise(p, -P, advice)));
        char *q = mmap(0, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        printf(", to read %s", err(madvise(q, P, advice)));
        char *n = mmap(0, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        printf(", none %s", err(madvise(n, P, advice)));
        char *s = map(P, MAP_SHARED);
        printf(", shared %s\n", err(madvise(s, P, advice)));
        munmap(p, 8 * P), munmap(q, P), munmap(n, P), munmap(s, P);
    }
}

static void names(void) {
    char name[300];
    memset(name, 'a', sizeof name);
    name[249] = 0;
    say("memfd of 249 letters", memfd_create(name, 0) < 0 ? -1 : 0);
    name[249] = 'a', name[250] = 0;
    say("memfd of 250 letters", memfd_create(name, 0) < 0 ? -1 : 0);
    say("memfd at a bad address", memfd_create((void *)8, 0) < 0 ? -1 : 0);
    say("memfd without a name", memfd_create("", 0) < 0 ? -1 : 0);
    say("memfd with unknown flags", memfd_create("x", 0x100) < 0 ? -1 : 0);
    say("memfd both to be executed and not", memfd_create("x", 0x18) < 0 ? -1 : 0);
    for (int fd = 3; fd < 20; fd++) close(fd);
}

/* Two letters for each property, of a region by its address. */
static void flags_of(const char *what, char *p) {
    char line[512], flags[256] = "";
    int inside = 0;
    FILE *f = fopen("/proc/self/smaps", "r");
    while (fgets(line, sizeof line, f)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && strchr("rwxps-", line[strcspn(line, " ") + 1]))
            inside = start <= (uintptr_t)p && (uintptr_t)p < end;
        else if (inside && !strncmp(line, "VmFlags:", 8))
            strcpy(flags, line + 9);
    }
    fclose(f);
    printf("%s:", what);
    /* What the host's configuration adds is left out. */
    for (char *word = strtok(flags, " \n"); word; word = strtok(0, " \n"))
        if (strcmp(word, "sd")) printf(" %s", word);
    puts("");
}

static void properties(void) {
    int file = memfd_create("properties", 0);
    ftruncate(file, 4 * P);
    char *p = map(P, MAP_PRIVATE);
    flags_of("private", p);
    madvise(p, P, MADV_RANDOM), flags_of("random", p);
    madvise(p, P, MADV_SEQUENTIAL), flags_of("in order", p);
    madvise(p, P, MADV_DONTFORK), flags_of("not forked", p);
    madvise(p, P, MADV_WIPEONFORK), flags_of("wiped", p);
    madvise(p, P, MADV_DONTDUMP), flags_of("not dumped", p);
    mlock(p, P), flags_of("locked", p);
    flags_of("shared", map(P, MAP_SHARED));
    flags_of("none", mmap(0, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    flags_of("not reserved", map(P, MAP_PRIVATE | MAP_NORESERVE));
    flags_of("growing down", map(P, MAP_PRIVATE | MAP_GROWSDOWN));
    flags_of("file", mmap(0, P, PROT_READ, MAP_PRIVATE, file, 0));
    flags_of("file, shared", mmap(0, P, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    flags_of("executable", mmap(0, P, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char name[64];
    sprintf(name, "/proc/self/fd/%d", file);
    int reader = open(name, O_RDONLY);
    flags_of("file to read, shared", mmap(0, P, PROT_READ, MAP_SHARED, reader, 0));
    close(file), close(reader);
}

/* Of two errors, the one that Linux looks for first. */
static void orders(void) {
    char *p = map(4 * P, MAP_PRIVATE), *end = (char *)0x7ffffffff000;
    int rw = PROT_READ | PROT_WRITE, a = MAP_ANONYMOUS, fixed = a | MAP_FIXED;
    unsigned char seen[4] = { 7, 7, 7, 7 };
    say("neither type, too long", (long)mmap(0, -P, rw, a, -1, 0));
    say("neither type, length wraps", (long)mmap(0, -1, rw, a, -1, 0));
    say("neither type, fixed at the end", (long)mmap(end, P, rw, fixed, -1, 0));
    say("neither type, fixed unaligned", (long)mmap(p + 1, P, rw, fixed, -1, 0));
    say("neither type, over a mapping", (long)mmap(p, P, rw, a | MAP_FIXED_NOREPLACE, -1, 0));
    say("neither type, beside it", (long)mmap(p + 1, P, rw, a | MAP_FIXED_NOREPLACE, -1, 0));
    munmap(p + 2 * P, P);
    say("mincore up to a gap", mincore(p, 4 * P, seen));
    printf("%d %d\n", seen[1] != 7, seen[2] != 7);
    say("mincore to nowhere before a gap", mincore(p, 4 * P, (unsigned char *)8));
    say("mincore to the kernel", mincore(p, P, (unsigned char *)-P));
    say("mincore of the kernel to the kernel", mincore((void *)-P, P, (unsigned char *)-P));
    say("mincore past the end", mincore(p, 1L << 47, seen));
    say("mincore unaligned", mincore(p + 1, 1L << 47, seen));
    munmap(p, 4 * P);
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    types_and_flags();
    protections();
    synchronised();
    nonlinear();
    advised();
    names();
    properties();
    orders();
}

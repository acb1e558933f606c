/* Stores to the memory of a child (process_vm_writev), long ones and ones whose vectors match no page, and a long
 * read and write of it (/proc/PID/mem). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 3072 };

static char *memory;

static void fill(int mark) {
    for (long i = 0; i < PAGES; i++) ((long *)(memory + i * PAGE))[0] = i * 16 + mark;
}

/* How many pages have the mark. */
static int count(int mark) {
    int found = 0;
    for (long i = 0; i < PAGES; i++) found += ((long *)(memory + i * PAGE))[0] == i * 16 + mark;
    return found;
}

static void store(pid_t child, struct iovec *here, long heres, struct iovec *there, long theres, long flags) {
    errno = 0;
    long stored = process_vm_writev(child, here, heres, there, theres, flags);
    printf("%ld, error %d\n", stored, errno);
}

static void odd(pid_t child) {
    char text[] = "from the parent, in pieces of several lengths";
    struct iovec here[] = { { text, 5 }, { text + 5, 0 }, { text + 5, 11 }, { text + 16, 29 } };
    struct iovec there[] = { { memory + PAGE - 3, 10 }, { 0, 0 }, { memory + 900 * PAGE - 20, 35 } };
    store(child, here, 4, there, 3, 0);
    struct iovec beyond[] = { { memory + PAGE * 7 + 100, 20 }, { (void *)64, 10 } };
    store(child, here, 4, beyond, 2, 0);
    store(child, here, 4, beyond + 1, 1, 0);
    store(child, here, 4, there, 3, 1);
    struct iovec wrong[] = { { text, 8 }, { (void *)64, 8 } };
    store(child, wrong, 2, there, 3, 0);
    struct iovec kernel[] = { { text, 8 }, { (void *)-4096L, 8 } };
    store(child, kernel, 2, there, 3, 0);
    store(child, here, 0, there, 3, 0);
    store(child, here, 1025, there, 3, 0);
    struct iovec long_one = { text, -1L };
    store(child, &long_one, 1, there, 3, 0);
    store(0x7ffffff, here, 4, there, 3, 0);
}

static void whole(pid_t child) {
    char name[32];
    snprintf(name, sizeof name, "/proc/%d/mem", child);
    int file = open(name, O_RDWR);
    printf("%zd of the child's\n", pread(file, memory, PAGES * PAGE, (off_t)memory));
    printf("%d as stored\n", count(1));
    fill(3);
    printf("%zd to the child\n", pwrite(file, memory, PAGES * PAGE, (off_t)memory));
    lseek(file, (off_t)memory, SEEK_SET);
    ssize_t got = read(file, memory, PAGES * PAGE);
    printf("%zd, then at %ld\n", got, (long)(lseek(file, 0, SEEK_CUR) - (off_t)memory));
    printf("%d as written\n", count(3));
}

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    memory = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int ready[2], go[2];
    if (memory == MAP_FAILED || pipe(ready) || pipe(go)) abort();
    fill(1);
    pid_t child = fork();
    char byte = 0;
    if (child == 0) {
        fill(2);
        write(ready[1], &byte, 1);
        read(go[0], &byte, 1);
        printf("the child's: %d new, %d old\n", count(1), count(2));
        write(ready[1], &byte, 1);
        read(go[0], &byte, 1);
        printf("%.7s|%.3s|%.35s|%.20s\n", memory + PAGE - 3, memory + PAGE + 4, memory + 900 * PAGE - 20, memory + 7 * PAGE + 100);
        _exit(0);
    }
    read(ready[0], &byte, 1);
    struct iovec all = { memory, PAGES * PAGE };
    store(child, &all, 1, &all, 1, 0);
    write(go[1], &byte, 1);
    read(ready[0], &byte, 1);
    whole(child);
    odd(child);
    write(go[1], &byte, 1);
    waitpid(child, 0, 0);
    printf("the parent's: %d\n", count(3));
    return 0;
}

/* A program that gains rights runs without a runtime, though a managed one executed it: what its parent reads and
 * writes of it is its own memory, not that of the process that made it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include "check.h"

enum { PAGE = 4096, PAGES = 3000 };
#define PLACE ((char *)0x200000000000)

static void fill(char with) {
    CHECK(mmap(PLACE, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == PLACE);
    memset(PLACE, with, PAGES * PAGE);
}

static int count(char of) {
    int found = 0;
    for (int i = 0; i < PAGES; i++) found += PLACE[i * PAGE] == of;
    return found;
}

static int child(void) {
    fill('c');
    CHECK(write(1, "r", 1) == 1);
    char byte;
    CHECK(read(0, &byte, 1) == 1);
    return count('w') / 20;
}

int main(int count_of_arguments, char **arguments) {
    if (count_of_arguments > 1) return child();
    struct stat own;
    int from = open("/proc/self/exe", O_RDONLY), to = open("outsider.copy", O_CREAT | O_TRUNC | O_WRONLY, 0700);
    CHECK(from >= 0 && to >= 0 && !fstat(from, &own));
    for (off_t left = own.st_size; left > 0;) {
        ssize_t sent = sendfile(to, from, NULL, left);
        CHECK(sent > 0);
        left -= sent;
    }
    CHECK(!fchmod(to, 04755) && !close(to));
    fill('p');
    int ready[2], go[2], nowhere = open("/dev/null", O_WRONLY);
    CHECK(!pipe(ready) && !pipe(go));
    pid_t pid = fork();
    if (pid == 0) {
        dup2(go[0], 0), dup2(ready[1], 1), dup2(nowhere, 2);
        execl("./outsider.copy", "outsider.copy", "child", NULL);
        _exit(99);
    }
    char byte, *bytes = malloc(PAGES * PAGE);
    CHECK(read(ready[0], &byte, 1) == 1);
    struct iovec here = { bytes, PAGES * PAGE }, there = { PLACE, PAGES * PAGE };
    ssize_t read_all = process_vm_readv(pid, &here, 1, &there, 1, 0);
    int equal = 0;
    for (int i = 0; i < PAGES; i++) equal += bytes[i * PAGE] == 'c';
    memset(bytes, 'w', PAGES * PAGE);
    ssize_t written = process_vm_writev(pid, &here, 1, &there, 1, 0);
    struct iovec nothing = { PLACE + (long)PAGES * PAGE * 2, 8 };
    ssize_t none = process_vm_writev(pid, &here, 1, &nothing, 1, 0);
    CHECK(write(go[1], "g", 1) == 1);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    printf("%zd read, %d equal, %zd written, %zd; the child's %x, ours %d\n", read_all, equal, written, none, status, count('p'));
    unlink("outsider.copy");
    return 0;
}

/* System V shared memory: segments by key and number, attaching, the counts, and when they go. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { P = 4096 };

static void say(const char *what, long n) { n == -1 ? printf("%s: %s\n", what, strerrorname_np(errno)) : printf("%s: ok\n", what); }
static char *at(const char *what, int id, const void *address, int flags) { char *p = shmat(id, address, flags); say(what, (long)p); return p; }

static int one;
static void status(const char *what) {
    struct shmid_ds d;
    if (shmctl(one, IPC_STAT, &d)) { printf("%s: %s\n", what, strerrorname_np(errno)); return; }
    printf("%s: %zu bytes, mode %o, %lu mapped, maker %d, last %d, times %d %d %d\n", what, d.shm_segsz, d.shm_perm.mode, (long)d.shm_nattch, d.shm_cpid == getpid(), d.shm_lpid == getpid(), d.shm_atime > 0, d.shm_dtime > 0, d.shm_ctime > 0);
}

/* What munmap and the end of a process note besides differs. */
static void mappings(const char *what) {
    struct shmid_ds d;
    shmctl(one, IPC_STAT, &d);
    printf("%s: %zu bytes, %lu mapped\n", what, d.shm_segsz, (long)d.shm_nattch);
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    key_t key = 0x5a000000 + getpid();
    say("not there", shmget(key, P, 0));
    say("of no size", shmget(key, 0, IPC_CREAT | 0600));
    say("of negative size", shmget(key, -1ul, IPC_CREAT | 0600));
    one = shmget(key, 3 * P + 5, IPC_CREAT | IPC_EXCL | 0640);
    say("made", one);
    printf("found %d\n", shmget(key, 0, 0) == one);
    say("exclusively", shmget(key, P, IPC_CREAT | IPC_EXCL | 0600));
    say("larger", shmget(key, 5 * P, 0));
    printf("smaller %d\n", shmget(key, P, IPC_CREAT) == one);
    status("at first");
    char *p = at("attach", one, 0, 0);
    p[0] = 1, p[3 * P] = 2;
    status("attached");
    char *q = at("to read", one, 0, SHM_RDONLY);
    printf("%d %d\n", q[0], q[3 * P]);
    say("made to write", mprotect(q, P, PROT_READ | PROT_WRITE));
    at("where something is", one, p, 0);
    at("odd", one, p + 5, 0);
    at("instead, nowhere", one, 0, SHM_REMAP);
    char *room = mmap(0, 16 * P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("instead %d\n", shmat(one, room, SHM_REMAP) == room);
    munmap(room + 8 * P, 8 * P);
    printf("rounded %d\n", shmat(one, room + 8 * P + 7, SHM_RND) == room + 8 * P);
    printf("%d %d\n", room[3 * P], room[8 * P]);
    status("four times");
    fflush(stdout);
    if (fork() == 0) { status("in a child"); p[1] = 9; say("detach", shmdt(p)); status("then"); _exit(0); }
    wait(0);
    printf("%d\n", p[1]);
    status("after it");
    munmap(q + P, P);
    mappings("a hole in one");
    say("detach it", shmdt(q));
    status("then");
    say("twice", shmdt(q));
    say("within", shmdt(p + P));
    say("odd", shmdt(p + 5));
    say("other memory", shmdt(mmap(0, P, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0)));
    struct shmid_ds d;
    shmctl(one, IPC_STAT, &d);
    d.shm_perm.mode = 0604;
    say("set", shmctl(one, IPC_SET, &d));
    status("changed");
    say("lock", shmctl(one, SHM_UNLOCK, 0));
    say("no such command", shmctl(one, 99, 0));
    say("no such segment", shmctl(0x7ffffff0, IPC_STAT, &d));
    say("to a bad address", shmctl(one, IPC_STAT, (void *)8));
    at("of none", 0x7ffffff0, 0, 0);
    shmdt(room), shmdt(room + 8 * P);
    say("removed", shmctl(one, IPC_RMID, 0));
    status("to go");
    say("its key", shmget(key, P, 0));
    printf("%d\n", p[3 * P]);
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    while (fgets(line, sizeof line, f)) {
        unsigned long start;
        sscanf(line, "%lx", &start);
        if (start == (uintptr_t)p) printf("called %.7s\n", strstr(line, "/SYSV") ? strstr(line, "/SYSV") : line);
    }
    fclose(f);
    say("the last", shmdt(p));
    status("gone");
    say("removed twice", shmctl(one, IPC_RMID, 0));
    int private = shmget(IPC_PRIVATE, P, 0600), other = shmget(IPC_PRIVATE, P, 0600);
    printf("two %d\n", private != other);
    p = at("attach", private, 0, 0);
    printf("%d\n", p[5]);
    shmctl(other, IPC_RMID, 0);
    shmctl(private, IPC_RMID, 0);
    /* What ends with its last process. */
    one = private;
    if (fork() == 0) { execl("/proc/self/exe-that-is-not-there", "x", (char *)0); _exit(0); }
    wait(0);
    mappings("still");
}

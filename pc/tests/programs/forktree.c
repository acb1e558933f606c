/* A tree of processes of depth 5, each with three children at the upper levels: everyone changes its
   copy, and nobody sees it but its children. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 64
static unsigned char *data;
static volatile int *shared;

static int grow(int depth, unsigned char path)
{
    int bad = 0;
    for (int child = 0; depth < 5 && child < (depth < 2 ? 3 : 1); child++) {
        unsigned char mine = (unsigned char)(path * 3 + child + 1);
        pid_t pid = fork();
        if (pid == 0) {
            for (int i = 0; i < PAGES; i++)
                if (data[i * 4096] != path)
                    exit(1);
            for (int i = 0; i < PAGES; i++)
                data[i * 4096] = mine;
            __sync_fetch_and_add(shared, 1);
            exit(grow(depth + 1, mine));
        }
        for (int i = 0; i < PAGES; i += 2)
            data[i * 4096 + 1]++;
        int status = 0;
        if (waitpid(pid, &status, 0) != pid || status != 0)
            bad = 1;
    }
    for (int i = 0; i < PAGES; i++)
        if (data[i * 4096] != path)
            bad = 1;
    return bad;
}

int main(void)
{
    data = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(data, 9, PAGES * 4096);
    int bad = grow(0, 9);
    printf("%d processes, %s\n", *shared, bad ? "wrong" : "right");
    return bad;
}

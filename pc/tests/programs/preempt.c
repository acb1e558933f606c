/* Two children that never give the CPU up see each other's progress; the parent sleeps, then kills
   them. */
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    volatile long *turn = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child[2];
    for (int i = 0; i < 2; i++) {
        child[i] = fork();
        if (child[i] == 0)
            for (;;)
                if (turn[0] % 2 == i)
                    turn[0]++;
    }
    struct timespec wait = { 0, 20000000 };
    while (turn[0] < 6)
        nanosleep(&wait, 0);
    for (int i = 0; i < 2; i++) {
        int status = 0;
        kill(child[i], SIGKILL);
        waitpid(child[i], &status, 0);
        printf("child %d: signal %d\n", i, WTERMSIG(status));
    }
    return 0;
}

/* Children that are killed at once, while their parent stores to 24 pages that it shared with them. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char pages[1024 * 4096];

int main(void)
{
    /* On one processor a child seldom runs before its parent goes on. */
    cpu_set_t one;
    int first = 0;
    sched_getaffinity(0, sizeof one, &one);
    while (!CPU_ISSET(first, &one))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    sched_setaffinity(0, sizeof one, &one);
    memset(pages, 1, sizeof pages);
    for (int child = 0; child < 5000; child++) {
        pid_t number = fork();
        if (number == -1)
            return 3;
        if (number == 0)
            for (;;)
                pause();
        kill(number, SIGKILL);
        for (int page = 0; page < 24; page++)
            pages[(100 + page) * 4096] = child;
        if (waitpid(number, NULL, 0) != number)
            return 4;
    }
    puts("done");
    return 0;
}

/* For each byte of input: children that end at once, while their parent stores to 24 of its pages. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    static char pages[24 * 4096 + 65536];
    char byte;
    memset(pages, 1, sizeof pages);
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) == 1) {
        for (int child = 0; child < 10; child++) {
            int ends[2];
            if (pipe(ends))
                return 2;
            pid_t number = fork();
            if (number == -1)
                return 3;
            if (number == 0) {
                close(ends[1]);
                _exit(read(ends[0], &byte, 1));
            }
            for (int page = 0; page < 24; page++)
                pages[32768 + page * 4096] = child;
            close(ends[0]);
            close(ends[1]);
            if (waitpid(number, NULL, 0) != number)
                return 4;
        }
        puts("forked");
        fflush(stdout);
    }
    return 0;
}

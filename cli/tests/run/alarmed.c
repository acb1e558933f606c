/* Two processes ask each other for memory, while alarms come faster than a request is answered: none may end
   the process that handles them. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int LEN = 12 << 20;
static volatile sig_atomic_t alarms;

/* The next one is due some time after this one was handled, so that a slow machine goes on too. */
static const struct itimerval soon = {{0, 0}, {0, 200}};

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
    setitimer(ITIMER_REAL, &soon, NULL);
}

static long use(volatile char *memory, int step)
{
    long sum = 0;
    for (int i = 0; i < LEN; i += step)
        sum += memory[i] += 1;
    return sum;
}

int main(void)
{
    char *memory = malloc(LEN);
    use(memory, 4096);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 20; i++)
            use(memory, 4096);
        _exit(use(memory, 4096) & 0x7f);
    }
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    int status, ended = 0;
    while (!ended || alarms < 10) {
        ended = ended || waitpid(child, &status, WNOHANG) == child;
        struct timespec moment = {0, 100000};
        nanosleep(&moment, NULL);
        use(memory, 64 * 4096);
    }
    signal(SIGALRM, SIG_IGN);
    printf("status %x\n", status);
    return 0;
}

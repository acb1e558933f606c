// A program changes what signals do while a timer's signals come, each of which asks what it does.

#include "check.h"
#include <signal.h>
#include <sys/time.h>

static volatile long ticks;

static void tick(int signal) {
    ticks++;
}

int main(void) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART}, was;
    CHECK(sigaction(SIGALRM, &action, 0) == 0);
    struct itimerval often = {{0, 50}, {0, 50}};
    CHECK(setitimer(ITIMER_REAL, &often, 0) == 0);
    for (int i = 0; i < 100 * 1000; i++) {
        int signal = i % 2 ? SIGALRM : SIGUSR1;
        CHECK(sigaction(signal, &action, &was) == 0);
        CHECK(was.sa_handler == (i == 0 ? SIG_DFL : tick));
    }
    printf("ticks: %d\n", ticks > 0);
}

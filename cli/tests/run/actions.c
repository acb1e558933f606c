// A program changes what signals do while a timer's signals come, each of which asks what it does.

#include "check.h"
#include <signal.h>
#include <sys/time.h>

static volatile long ticks;

// The next one is due some time after this one was handled, so that a slow machine goes on too.
static const struct itimerval soon = {.it_value = {0, 50}};

static void tick(int signal) {
    ticks++;
    setitimer(ITIMER_REAL, &soon, 0);
}

int main(void) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART}, was;
    CHECK(sigaction(SIGALRM, &action, 0) == 0);
    CHECK(setitimer(ITIMER_REAL, &soon, 0) == 0);
    for (int i = 0; i < 100 * 1000; i++) {
        int signal = i % 2 ? SIGALRM : SIGUSR1;
        CHECK(sigaction(signal, &action, &was) == 0);
        CHECK(was.sa_handler == (i == 0 ? SIG_DFL : tick));
    }
    printf("ticks: %d\n", ticks > 0);
}

/* The main thread ends first; the process ends with the last of the program's own threads. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIZE = 6 << 20 };

static void *work(void *unused) {
    unsigned char *block = malloc(SIZE);
    for (int i = 0; i < SIZE; i += 4096) block[i] = i >> 12;
    usleep(10000);
    long sum = 0;
    for (int i = 0; i < SIZE; i += 4096) sum += block[i];
    printf("%ld\n", sum);
    return unused;
}

int main(void) {
    pthread_t thread;
    for (int i = 0; i < 3; i++) pthread_create(&thread, 0, work, 0);
    pthread_exit(0);
}

// Memory that may only be executed leaves and comes back, although a processor with protection keys would keep the
// runtime, too, from reading it.
#define _GNU_SOURCE
#include "check.h"
#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 1024 };

static unsigned char *map(long pages) {
    void *at = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void press(void) {
    unsigned char *much = map(4 * PAGES);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 4 * PAGES; i++) much[i * PAGE] = i + round;
    CHECK(munmap(much, 4 * PAGES * PAGE) == 0);
}

// mov eax, number; ret
static void write_code(unsigned char *at, int number) {
    at[0] = 0xb8;
    memcpy(at + 1, &number, 4);
    at[5] = 0xc3;
}

static int calls(unsigned char *code) {
    int wrong = 0;
    for (int i = 0; i < PAGES; i++) wrong += ((int (*)(void))(code + i * PAGE))() != i;
    return wrong;
}

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    unsigned char *code = map(PAGES);
    for (int i = 0; i < PAGES; i++) write_code(code + i * PAGE, i);
    CHECK(mprotect(code, PAGES * PAGE, PROT_EXEC) == 0);
    press();
    printf("calls: %d wrong\n", calls(code));
    press();
    pid_t child = fork();
    if (child == 0) {
        press();
        _exit(calls(code) != 0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("child %x\n", status);
    press();
    CHECK(mprotect(code, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    int wrong = 0;
    for (int i = 0; i < PAGES; i++) wrong += code[i * PAGE] != 0xb8 || *(int *)(code + i * PAGE + 1) != i;
    printf("content: %d wrong\n", wrong);
    return 0;
}

// Preloaded into a program, this adds the seconds in the file $CLOCK_AHEAD to the time of the day. Nobody else's clock moves, and
// those that count from the machine's start do not either.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;

__attribute__((constructor)) static void attach(void)
{
	const char *name = getenv("CLOCK_AHEAD");
	int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
	if (page == MAP_FAILED)
		abort();
	close(file);
	ahead = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = syscall(SYS_clock_gettime, clock, now);
	if (result == 0 && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *ahead;
	return result;
}

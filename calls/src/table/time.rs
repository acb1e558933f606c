//! Clocks, timers, sleep.

use super::words::*;
use Interrupted::{ByCommand, Resumes};

pub(super) const CALLS: &[Call] = &[
    call(35, "nanosleep", [input(TIMESPEC), output(TIMESPEC)]).waits(Resumes).time_left(),
    call(230, "clock_nanosleep", [V, V, input(TIMESPEC), output(TIMESPEC)])
        .waits(ByCommand)
        .time_left(),
    call(36, "getitimer", [V, output(TIMER)]).again(),
    call(37, "alarm", [V]),
    call(38, "setitimer", [V, input(TIMER), output(TIMER)]),
    call(96, "gettimeofday", [output(16), output(8)]).again(),
    call(164, "settimeofday", [input(16), input(8)]).again(),
    call(201, "time", [output(8)]).again(),
    call(159, "adjtimex", [both(208)]),
    call(305, "clock_adjtime", [V, both(208)]),
    call(227, "clock_settime", [V, input(TIMESPEC)]).again(),
    call(228, "clock_gettime", [V, output(TIMESPEC)]).again(),
    call(229, "clock_getres", [V, output(TIMESPEC)]).again(),
    // A failed one has taken an ID.
    call(222, "timer_create", [V, input(64), both(4)]),
    call(223, "timer_settime", [V, V, input(TIMER), output(TIMER)]),
    call(224, "timer_gettime", [V, output(TIMER)]).again(),
    call(225, "timer_getoverrun", [V]),
    call(226, "timer_delete", [V]),
    call(283, "timerfd_create", [V, V]),
    call(286, "timerfd_settime", [FD, V, input(TIMER), output(TIMER)]),
    call(287, "timerfd_gettime", [FD, output(TIMER)]).again(),
];

//! Waiting for files: `poll`, `select`, `epoll`, and the files that are counters.

use super::signals::of_size;
use super::time::{clock_of, duration, read_itimer, write_itimer};
use super::{Arguments, Result};
use crate::errno::Errno;
use crate::fs::epoll::{Epoll, Wish};
use crate::fs::event::{Counter, Take, Timer};
use crate::fs::ready::{self, Ready};
use crate::fs::{OnExec, Open, What, file};
use crate::{clock, process, signal, user};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as nr;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, e, .. } = arguments;
    Some(match number {
        nr::__NR_poll => poll(a, b, milliseconds(c as i32)),
        nr::__NR_ppoll => blocking(d, e).and_then(|()| poll(a, b, duration(c)?)),
        nr::__NR_select => select(arguments, microseconds(e)),
        nr::__NR_pselect6 => pselect(arguments),
        nr::__NR_epoll_create if a as i32 <= 0 => Err(Errno::EINVAL),
        nr::__NR_epoll_create => add(What::Epoll(Epoll::default()), 0),
        nr::__NR_epoll_create1 => only(a as u32, nr::O_CLOEXEC)
            .and_then(|flags| add(What::Epoll(Epoll::default()), flags)),
        nr::__NR_epoll_ctl => epoll_ctl(a as u32, b as u32, c as u32, d),
        nr::__NR_epoll_wait => epoll_wait(a as u32, b, c as i32, milliseconds(d as i32)),
        nr::__NR_epoll_pwait => blocking(e, arguments.f)
            .and_then(|()| epoll_wait(a as u32, b, c as i32, milliseconds(d as i32))),
        nr::__NR_epoll_pwait2 => {
            blocking(e, arguments.f).and_then(|()| epoll_wait(a as u32, b, c as i32, duration(d)?))
        }
        nr::__NR_eventfd => eventfd(a, 0),
        nr::__NR_eventfd2 => eventfd(a, b as u32),
        nr::__NR_timerfd_create => only(b as u32, nr::O_NONBLOCK | nr::O_CLOEXEC)
            .and_then(|flags| add(What::Timer(Timer::new(clock_of(a as i32)?)), flags)),
        nr::__NR_timerfd_settime => timerfd_settime(a as u32, b as u32, c, d),
        nr::__NR_timerfd_gettime => with_timer(a as u32, |timer| write_itimer(b, timer.get())),
        _ => return None,
    })
}

/// Flags, if there are no others than those known.
const fn only(flags: u32, known: u32) -> core::result::Result<u32, Errno> {
    if flags & !known == 0 { Ok(flags) } else { Err(Errno::EINVAL) }
}

fn add(what: What, flags: u32) -> Result {
    let open = Open::new(what, flags & !nr::O_CLOEXEC | nr::O_RDWR);
    Ok(process::current().files.lock().add(open, 0, OnExec::of(flags))?.into())
}

/// A time to wait, in nanoseconds; `None` for without end.
type Patience = Option<u64>;

const fn milliseconds(timeout: i32) -> Patience {
    if timeout < 0 { None } else { Some(timeout as u64 * 1_000_000) }
}

/// A `struct timeval`, if there is one.
fn microseconds(at: u64) -> core::result::Result<Patience, Errno> {
    if at == 0 {
        return Ok(None);
    }
    let (seconds, microseconds) = (user::read_u64(at)?, user::read_u64(at + 8)?);
    if seconds > i64::MAX as u64 || microseconds > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    let seconds = seconds.saturating_mul(1_000_000_000);
    Ok(Some(seconds.saturating_add(microseconds.saturating_mul(1000))))
}

fn deadline(patience: Patience) -> u64 {
    patience.map_or(u64::MAX, |time| clock::nanoseconds().saturating_add(time))
}

/// Blocks the signals that a set of so many bytes names while the call waits, if there is a set.
fn blocking(set: u64, bytes: u64) -> core::result::Result<(), Errno> {
    if set != 0 {
        of_size(bytes)?;
        signal::block_meanwhile(user::read_u64(set)?);
    }
    Ok(())
}

/// The most files that one call waits for.
const MOST: u64 = 1024;

fn poll(list: u64, count: u64, patience: Patience) -> Result {
    if count > MOST {
        return Err(Errno::EINVAL);
    }
    let mut wanted = Vec::new();
    for i in 0..count {
        let entry = user::read_u64(list + i * 8)?;
        let events = (entry >> 32) as u16;
        // A negative number is skipped.
        let open = ((entry as i32) >= 0).then(|| file(entry as u32));
        wanted.push((open, Ready::from_bits_truncate(events.into()) | Ready::ALWAYS));
    }
    let look = |(open, events): &(Option<_>, Ready)| match open {
        None => Ready::empty(),
        Some(Err(_)) => Ready::INVALID,
        Some(Ok(open)) => {
            let open: &Arc<Open> = open;
            open.ready().0 & *events
        }
    };
    let found = ready::wait(deadline(patience), || {
        let found: Vec<_> = wanted.iter().map(look).collect();
        Ok(found.iter().any(|ready| !ready.is_empty()).then_some(found))
    })?;
    let mut ready = 0;
    for i in 0..count {
        let events = found.as_ref().map_or(Ready::empty(), |found| found[i as usize]);
        user::write(list + i * 8 + 6, &(events.bits() as u16).to_le_bytes())?;
        ready += u64::from(!events.is_empty());
    }
    Ok(ready)
}

/// What each of the three sets of `select` asks about.
const ASKED: [Ready; 3] =
    [Ready::IN.union(Ready::HUP).union(Ready::ERR), Ready::OUT.union(Ready::ERR), Ready::empty()];

fn select(arguments: Arguments, patience: core::result::Result<Patience, Errno>) -> Result {
    let Arguments { a: count, b, c, d, .. } = arguments;
    let count = count.min(MOST);
    let words = count.div_ceil(64) as usize;
    let mut sets: [Vec<u64>; 3] = Default::default();
    let mut wanted = Vec::new();
    for (which, at) in [b, c, d].into_iter().enumerate() {
        for i in 0..if at == 0 { 0 } else { words } {
            let word = user::read_u64(at + 8 * i as u64)?;
            sets[which].push(0);
            for bit in (0..64).filter(|bit| word >> bit & 1 != 0) {
                let number = i as u32 * 64 + bit;
                if u64::from(number) < count {
                    wanted.push((which, number, file(number)?));
                }
            }
        }
    }
    let found = ready::wait(deadline(patience?), || {
        let ready = |(which, number, open): &(usize, u32, Arc<Open>)| {
            open.ready().0.intersects(ASKED[*which]).then_some((*which, *number))
        };
        let found: Vec<_> = wanted.iter().filter_map(ready).collect();
        Ok((!found.is_empty()).then_some(found))
    })?;
    let found = found.unwrap_or_default();
    for (which, number) in &found {
        sets[*which][*number as usize / 64] |= 1 << (number % 64);
    }
    for (at, set) in [b, c, d].into_iter().zip(&sets) {
        for (i, word) in (0..).zip(set) {
            user::write(at + 8 * i, &word.to_le_bytes())?;
        }
    }
    Ok(found.len() as u64)
}

fn pselect(arguments: Arguments) -> Result {
    // The last argument points to the set's address and its size.
    if arguments.f != 0 {
        blocking(user::read_u64(arguments.f)?, user::read_u64(arguments.f.wrapping_add(8))?)?;
    }
    select(arguments, duration(arguments.e))
}

fn with_epoll<T>(
    number: u32,
    act: impl FnOnce(&Epoll) -> core::result::Result<T, Errno>,
) -> core::result::Result<T, Errno> {
    match &file(number)?.what {
        What::Epoll(epoll) => act(epoll),
        _ => Err(Errno::EINVAL),
    }
}

fn epoll_ctl(number: u32, operation: u32, of: u32, event: u64) -> Result {
    let open = file(of)?;
    // Lists of lists are not kept.
    if matches!(open.what, What::Epoll(_)) {
        return Err(Errno::EINVAL);
    }
    // What is always ready need not be waited for.
    if matches!(&open.what, What::Node(node, _) if node.is_regular()) {
        return Err(Errno::EPERM);
    }
    let wish = || -> core::result::Result<Wish, Errno> {
        let events = user::read(event).map(u32::from_le_bytes)?;
        Ok(Wish { events, data: user::read_u64(event + 4)? })
    };
    with_epoll(number, |epoll| match operation {
        nr::EPOLL_CTL_ADD => epoll.add(of, &open, wish()?),
        nr::EPOLL_CTL_MOD => epoll.change(of, &open, wish()?),
        nr::EPOLL_CTL_DEL => epoll.remove(of, &open),
        _ => Err(Errno::EINVAL),
    })?;
    // Who waits already is to see it too.
    ready::changed();
    Ok(0)
}

fn epoll_wait(number: u32, to: u64, most: i32, patience: Patience) -> Result {
    if most <= 0 {
        return Err(Errno::EINVAL);
    }
    let most = most.min(MOST as i32) as usize;
    let found = with_epoll(number, |epoll| epoll.wait(most, deadline(patience)))?;
    for (i, wish) in (0..).zip(&found) {
        user::write(to + 12 * i, &wish.events.to_le_bytes())?;
        user::write(to + 12 * i + 4, &wish.data.to_le_bytes())?;
    }
    Ok(found.len() as u64)
}

fn eventfd(count: u64, flags: u32) -> Result {
    only(flags, nr::EFD_SEMAPHORE | nr::O_NONBLOCK | nr::O_CLOEXEC)?;
    let take = if flags & nr::EFD_SEMAPHORE != 0 { Take::One } else { Take::All };
    let counter = Counter::new(u64::from(count as u32), take);
    add(What::Counter(counter), flags & (nr::O_NONBLOCK | nr::O_CLOEXEC))
}

fn with_timer(number: u32, act: impl FnOnce(&Timer) -> Result) -> Result {
    match &file(number)?.what {
        What::Timer(timer) => act(timer),
        _ => Err(Errno::EINVAL),
    }
}

fn timerfd_settime(number: u32, flags: u32, new: u64, old: u64) -> Result {
    with_timer(number, |timer| {
        let before = timer.get();
        timer.set(read_itimer(new, (flags & nr::TFD_TIMER_ABSTIME != 0).then_some(timer.clock))?);
        if old != 0 { write_itimer(old, before) } else { Ok(0) }
    })
}

//! `epoll`: a list of files that is kept from one wait to the next.

use super::open::Open;
use super::ready::{self, Ready};
use crate::errno::Errno;
use crate::lock::Mutex;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// Tell only what changed since it was last told (`EPOLLET`).
const EDGE: u32 = 1 << 31;
/// Tell once, and then no more until asked again (`EPOLLONESHOT`).
const ONCE: u32 = 1 << 30;

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// `EPOLL` flags.
    pub events: u32,
    /// The program's data beside the events.
    pub data: u64,
}

struct Interest {
    open: Weak<Open>,
    wish: Wish,
    /// The count of changes when the file was last told of.
    told: Option<u64>,
    /// It was told of, and is not again until that is asked for.
    is_silent: bool,
}

/// A list of files, by the number under which each was added. A file that is closed leaves it.
#[derive(Default)]
pub struct Epoll(Mutex<BTreeMap<u32, Interest>>);

impl Epoll {
    /// Adds a file.
    pub fn add(&self, number: u32, open: &Arc<Open>, wish: Wish) -> Result<(), Errno> {
        let mut list = self.0.lock();
        let is_there = list.get(&number).is_some_and(|interest| interest.is_of(open));
        if is_there {
            return Err(Errno::EEXIST);
        }
        list.insert(
            number,
            Interest { open: Arc::downgrade(open), wish, told: None, is_silent: false },
        );
        Ok(())
    }

    /// Changes what is wanted of a file.
    pub fn change(&self, number: u32, open: &Arc<Open>, wish: Wish) -> Result<(), Errno> {
        let mut list = self.0.lock();
        let interest = list.get_mut(&number).filter(|interest| interest.is_of(open));
        let interest = interest.ok_or(Errno::ENOENT)?;
        (interest.wish, interest.told, interest.is_silent) = (wish, None, false);
        Ok(())
    }

    /// Takes a file off the list.
    pub fn remove(&self, number: u32, open: &Arc<Open>) -> Result<(), Errno> {
        let mut list = self.0.lock();
        list.get(&number).filter(|interest| interest.is_of(open)).ok_or(Errno::ENOENT)?;
        list.remove(&number);
        Ok(())
    }

    /// Waits until files are ready, and returns up to `most` of them.
    pub fn wait(&self, most: usize, deadline: u64) -> Result<Vec<Wish>, Errno> {
        let found = ready::wait(deadline, || {
            let found = self.look(most);
            Ok((!found.is_empty()).then_some(found))
        })?;
        Ok(found.unwrap_or_default())
    }

    /// The files that are ready now, with what they are ready for.
    fn look(&self, most: usize) -> Vec<Wish> {
        // Files are looked at with the list unlocked: what they take to look is their affair, and
        // the last use of one is an end that may wait.
        let watched: Vec<_> = self
            .0
            .lock()
            .iter()
            .filter_map(|(number, interest)| Some((*number, interest.open.upgrade()?)))
            .collect();
        let looked: Vec<_> =
            watched.iter().map(|(number, open)| (*number, open, open.ready())).collect();
        let mut found = Vec::new();
        let mut list = self.0.lock();
        list.retain(|_, interest| interest.open.strong_count() > 0);
        for (number, open, (ready, changes)) in looked {
            let Some(interest) = list.get_mut(&number).filter(|other| other.is_of(open)) else {
                continue;
            };
            let wanted = Ready::from_bits_truncate(interest.wish.events) | Ready::ALWAYS;
            let is_old = interest.wish.events & EDGE != 0 && interest.told == Some(changes);
            let events = ready & wanted;
            if events.is_empty() || is_old || interest.is_silent || found.len() == most {
                continue;
            }
            interest.told = Some(changes);
            found.push(Wish { events: events.bits(), data: interest.wish.data });
            interest.is_silent = interest.wish.events & ONCE != 0;
        }
        drop(list);
        found
    }

    /// Whether a file of the list is ready.
    pub fn ready(&self) -> (Ready, u64) {
        let watched: Vec<_> = self
            .0
            .lock()
            .values()
            .filter(|interest| !interest.is_silent)
            .filter_map(|interest| Some((interest.open.upgrade()?, interest.wish.events)))
            .collect();
        let is_ready = |(open, events): &(Arc<Open>, u32)| {
            open.ready().0.intersects(Ready::from_bits_truncate(*events) | Ready::ALWAYS)
        };
        let mut ready = Ready::empty();
        ready.set(Ready::IN, watched.iter().any(is_ready));
        (ready, 0)
    }
}

impl Interest {
    fn is_of(&self, open: &Arc<Open>) -> bool {
        core::ptr::eq(self.open.as_ptr(), Arc::as_ptr(open))
    }
}

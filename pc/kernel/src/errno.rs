//! Error numbers of system calls.

use crate::user::BadAddress;
use linux_raw_sys::errno as raw;

/// An error number; a system call returns its negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

macro_rules! errnos {
    ($($name:ident)+) => {
        #[allow(missing_docs, reason = "the names are those of errno(3)")]
        impl Errno {
            $(pub const $name: Self = Self(raw::$name);)+
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT EEXIST ENOTDIR
    EISDIR EINVAL EMFILE ENOTTY ESPIPE EPIPE ERANGE ENOSYS ENOTEMPTY ELOOP ETIMEDOUT ENODEV
    EMSGSIZE ENXIO EAFNOSUPPORT ENOTSOCK EOPNOTSUPP EISCONN ENODATA EPROTONOSUPPORT EXDEV
    EBUSY EFBIG EIO ENOSPC ENOLCK E2BIG ENAMETOOLONG
}

impl From<BadAddress> for Errno {
    fn from(_: BadAddress) -> Self {
        Self::EFAULT
    }
}

/// The memory manager's errors, each with its number.
impl<E> From<E> for Errno
where
    pagefault::error::Errno: From<E>,
{
    fn from(error: E) -> Self {
        Self(pagefault::error::Errno::from(error).number() as u32)
    }
}

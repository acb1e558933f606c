//! Errors: one enum for each operation, with an errno for each variant.

use core::fmt;

/// An error number as a Linux system call returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of errno(3)")]
pub enum Errno {
    EPERM,
    ESRCH,
    EIO,
    EBADF,
    EAGAIN,
    ENOMEM,
    EACCES,
    EFAULT,
    EBUSY,
    EEXIST,
    ENODEV,
    EINVAL,
    ETXTBSY,
    EFBIG,
    ENOSPC,
    EROFS,
    ENOSYS,
    EOVERFLOW,
    EOPNOTSUPP,
}

impl Errno {
    /// The number as on x86-64 Linux.
    pub const fn number(self) -> i32 {
        match self {
            Self::EPERM => 1,
            Self::ESRCH => 3,
            Self::EIO => 5,
            Self::EBADF => 9,
            Self::EAGAIN => 11,
            Self::ENOMEM => 12,
            Self::EACCES => 13,
            Self::EFAULT => 14,
            Self::EBUSY => 16,
            Self::EEXIST => 17,
            Self::ENODEV => 19,
            Self::EINVAL => 22,
            Self::ETXTBSY => 26,
            Self::EFBIG => 27,
            Self::ENOSPC => 28,
            Self::EROFS => 30,
            Self::ENOSYS => 38,
            Self::EOVERFLOW => 75,
            Self::EOPNOTSUPP => 95,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

/// Defines an error enum: a sentence for each variant, and its errno.
macro_rules! errors {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $errno:ident, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = $text] $variant,)+
        }

        impl $name {
            /// The error number that the Linux system call returns in this case.
            pub const fn errno(self) -> Errno {
                match self { $(Self::$variant => Errno::$errno,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (text, errno) = match self { $(Self::$variant => ($text, Errno::$errno),)+ };
                write!(f, "{} ({errno})", text.trim_end_matches('.'))
            }
        }

        impl core::error::Error for $name {}

        impl From<$name> for Errno {
            fn from(error: $name) -> Self {
                error.errno()
            }
        }
    };
}

errors! {
    /// Why a mapping could not be made (spec C7–C10).
    MapError {
        ZeroLength = EINVAL, "The length is zero.";
        Unaligned = EINVAL, "A fixed address or a file offset is not page-aligned.";
        TooLong = ENOMEM, "The length does not fit the address space.";
        OutOfRange = ENOMEM, "A fixed address lies outside the address space.";
        OffsetOverflow = EOVERFLOW, "The file offset plus the length overflows.";
        TooManyRegions = ENOMEM, "The address space has too many regions.";
        NoGap = ENOMEM, "No gap between the regions is large enough.";
        Occupied = EEXIST, "Something is mapped there already.";
        NotReadable = EACCES, "The file is not open for reading.";
        NotWritable = EACCES, "A shared writable mapping needs a file open for writing.";
        GrowsWithFile = EINVAL, "A mapping that grows down cannot be of a file or shared.";
        AddressSpaceLimit = ENOMEM, "The limit on the size of the address space is reached.";
        DataLimit = ENOMEM, "The limit on memory that only the program writes is reached.";
        LockLimit = EAGAIN, "The limit on locked memory is reached.";
        CommitLimit = ENOMEM, "More memory would be promised than there is.";
        Ended = ESRCH, "The owner of the address space is gone.";
        Sealed = EPERM, "A mapping in the range is sealed.";
        Foreign = EINVAL, "The file belongs to another memory manager.";
    }
}

errors! {
    /// Why a range could not be unmapped (spec C11).
    UnmapError {
        Unaligned = EINVAL, "The address is not page-aligned.";
        OutOfRange = EINVAL, "The range is empty or leaves the address space.";
        TooManyRegions = ENOMEM, "Splitting a region would make too many of them.";
        Sealed = EPERM, "A mapping in the range is sealed.";
    }
}

errors! {
    /// Why a range could not be sealed.
    SealError {
        Unaligned = EINVAL, "The address is not page-aligned.";
        Wraps = EINVAL, "The range wraps around the end of the addresses.";
        Unmapped = ENOMEM, "A part of the range is not mapped.";
        TooManyRegions = ENOMEM, "Splitting a region would make too many of them.";
    }
}

errors! {
    /// Why a protection could not be changed (spec C12).
    ProtectError {
        Unaligned = EINVAL, "The address is not page-aligned.";
        Wraps = ENOMEM, "The range wraps around the end of the addresses.";
        Unmapped = ENOMEM, "A part of the range is not mapped.";
        NotAStack = EINVAL, "The mapping does not grow down.";
        NotAllowed = EACCES, "The mapping may never have this protection.";
        CommitLimit = ENOMEM, "More memory would be promised than there is.";
        DataLimit = ENOMEM, "The limit on memory that only the program writes is reached.";
        TooManyRegions = ENOMEM, "Splitting a region would make too many of them.";
        Sealed = EPERM, "A mapping in the range is sealed.";
    }
}

errors! {
    /// Why a mapping could not be resized or moved (spec C13, C14).
    RemapError {
        Unaligned = EINVAL, "An address is not page-aligned.";
        ZeroLength = EINVAL, "The new length is zero.";
        BadTarget = EINVAL, "The target overlaps the old range or leaves the address space.";
        BadOldLength = EINVAL, "This old length is not possible with this mapping.";
        KeepsSize = EINVAL, "A mapping whose place stays mapped keeps its size.";
        CannotStay = EINVAL, "The place of this mapping cannot stay mapped.";
        Unmapped = EFAULT, "The old range is not inside one mapping.";
        NotResizable = EFAULT, "The mapping must keep its size.";
        MustMove = ENOMEM, "There is no room to grow in place, and moving was not allowed.";
        NoGap = ENOMEM, "No gap between the regions is large enough.";
        TooManyRegions = ENOMEM, "The address space has too many regions.";
        AddressSpaceLimit = ENOMEM, "The limit on the size of the address space is reached.";
        DataLimit = ENOMEM, "The limit on memory that only the program writes is reached.";
        LockLimit = EAGAIN, "The limit on locked memory is reached.";
        CommitLimit = ENOMEM, "More memory would be promised than there is.";
        OutOfMemory = ENOMEM, "No memory for page tables or the bookkeeping.";
        Sealed = EPERM, "A mapping in the range is sealed.";
    }
}

errors! {
    /// Why advice was not taken (spec C16).
    AdviseError {
        Unaligned = EINVAL, "The address is not page-aligned.";
        BadLength = EINVAL, "The length is negative or wraps around.";
        Unmapped = ENOMEM, "A part of the range is not mapped; the rest was advised.";
        Unsuitable = EINVAL, "The advice does not fit a mapping in the range.";
        NotWritable = EACCES, "The mapping is not shared and writable.";
        NoHole = EOPNOTSUPP, "The file cannot have holes.";
        OfDevice = ENODEV, "Memory of a device cannot have holes.";
        TooFar = EFBIG, "The range reaches past the last offset that a file can have.";
        TooManyRegions = ENOMEM, "Splitting a region would make too many of them.";
        NotAccessible = EFAULT, "A page could not be populated: its access would raise a signal.";
        Denied = EINVAL, "A mapping in the range does not allow this access.";
        OutOfMemory = ENOMEM, "No memory to populate a page.";
        Sealed = EPERM, "A mapping in the range is sealed.";
    }
}

errors! {
    /// Why a range could not be locked in memory (spec C17).
    LockError {
        Wraps = EINVAL, "The range wraps around the end of the addresses.";
        Unmapped = ENOMEM, "A part of the range is not mapped, or a page cannot be read.";
        OverLimit = ENOMEM, "The limit on locked memory is reached.";
        NotPermitted = EPERM, "Locking memory is not permitted.";
        Nothing = EINVAL, "Neither present nor future mappings are to be locked.";
        TooManyRegions = ENOMEM, "Splitting a region would make too many of them.";
        Again = EAGAIN, "A page could not be brought in.";
    }
}

errors! {
    /// Why a page that the machine already holds could not be taken over.
    AdoptError {
        Unmapped = ENOMEM, "No region contains the address.";
        NotAnonymous = EINVAL, "The region is not private anonymous memory.";
        OutOfMemory = ENOMEM, "No memory for the page or the bookkeeping.";
    }
}

errors! {
    /// Why a range could not be written back (spec C18).
    SyncError {
        Unaligned = EINVAL, "The address is not page-aligned.";
        Wraps = ENOMEM, "The range wraps around the end of the addresses.";
        Unmapped = ENOMEM, "A part of the range is not mapped.";
        Locked = EBUSY, "The range is locked in memory.";
        Io = EIO, "Writing to the store failed.";
        Full = ENOSPC, "The store is full.";
    }
}

errors! {
    /// Why residency could not be told.
    MincoreError {
        Unaligned = EINVAL, "The address is not page-aligned.";
        Unmapped = ENOMEM, "A part of the range is not mapped.";
    }
}

errors! {
    /// Why file pages could not be rearranged within a mapping (spec C19).
    RemapPagesError {
        BadRange = EINVAL, "The range is empty, wraps around or leaves its mapping.";
        NotShared = EINVAL, "The mapping is not shared.";
        NotEncodable = EINVAL, "The page number does not fit a page-table entry.";
        NotPermitted = EPERM, "Locking memory is not permitted.";
        LockLimit = EAGAIN, "The limit on locked memory is reached.";
        TooFar = EOVERFLOW, "The page number is past what a mapping may reach.";
        Unmappable = ENOMEM, "The piece could not be mapped on its own.";
        OutOfMemory = ENOMEM, "No memory for page tables.";
        Sealed = EPERM, "A mapping in the range is sealed.";
    }
}

errors! {
    /// Why the kernel could not reach a program's memory (spec H2, H3).
    UserError {
        BadAddress = EFAULT, "The memory is not mapped for this access, or its content cannot be read.";
        OutOfMemory = ENOMEM, "No memory to bring a page in.";
        TooManyPins = ENOMEM, "A page has 65,535 pins.";
    }
}

errors! {
    /// Why an address space could not be made or copied (spec E1).
    ForkError {
        CommitLimit = ENOMEM, "More memory would be promised than there is.";
        OutOfMemory = ENOMEM, "No memory for page tables or the bookkeeping.";
        Refused = EAGAIN, "The machine can have no further address space.";
    }
}

errors! {
    /// Why a swap area could not be taken away (spec F12).
    SwapOffError {
        NoSuchArea = EINVAL, "There is no such area.";
        OutOfMemory = ENOMEM, "The pages of the area do not fit elsewhere.";
        Io = EIO, "A page of the area cannot be read.";
        Busy = EBUSY, "Pages of the area kept coming into use.";
    }
}

errors! {
    /// Why an operation on a file's content failed.
    FileError {
        Io = EIO, "The store failed.";
        Full = ENOSPC, "The store is full.";
        Unsupported = EINVAL, "The store does not offer this.";
        OutOfMemory = ENOMEM, "No memory for the page cache.";
        OutOfRange = EINVAL, "The offset is out of range.";
    }
}

impl From<crate::machine::IoError> for FileError {
    fn from(error: crate::machine::IoError) -> Self {
        match error {
            crate::machine::IoError::Device => Self::Io,
            crate::machine::IoError::Full => Self::Full,
            crate::machine::IoError::Unsupported => Self::Unsupported,
        }
    }
}

/// Nothing could be reclaimed to make room for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing could be reclaimed to make room for a page")
    }
}

impl core::error::Error for OutOfMemory {}

/// Why a fault is not corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No region contains the address.
    NoRegion,
    /// The region does not allow the access.
    Forbidden,
    /// The content cannot be had: past the end of the file, or unreadable.
    Bus,
    /// The page is a guard.
    Guard,
    /// No frame could be had.
    OutOfMemory,
}

impl From<OutOfMemory> for Refusal {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

//! Calls whose command says what an argument is.

use super::{Flow, GO_ON, VECTORS, Walk};
use crate::area::Kind;
use crate::call::{Dir, Interrupted};
use linux_raw_sys::{general, prctl};

/// What a handler does to `futex` with these arguments.
pub(crate) fn futex_interrupted(args: &[u64; 6]) -> Interrupted {
    match args[1] as u32 & FUTEX_COMMAND {
        // With a timeout the kernel goes on by `restart_syscall`, which a handler ends.
        general::FUTEX_WAIT | general::FUTEX_WAIT_BITSET if args[3] != 0 => Interrupted::Resumes,
        general::FUTEX_WAIT | general::FUTEX_WAIT_BITSET => Interrupted::Restarts,
        general::FUTEX_LOCK_PI | general::FUTEX_LOCK_PI2 | general::FUTEX_WAIT_REQUEUE_PI => {
            Interrupted::StartsAgain
        }
        _ => Interrupted::Never,
    }
}

/// The command without `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME`.
const FUTEX_COMMAND: u32 = !(128 | 256);

impl Walk<'_> {
    pub(super) fn fcntl(&mut self, start: u64) -> Flow {
        match self.args[1] as u32 {
            // F_GETLK, F_SETLK, F_SETLKW, and the same for open file descriptions.
            5 | 36 => self.record(start, 32, Dir::Both),
            6 | 7 | 37 | 38 => self.record(start, 32, Dir::In),
            // F_SETOWN_EX, F_GETOWN_EX, F_GETOWNER_UIDS.
            15 => self.record(start, 8, Dir::In),
            16 | 17 => self.record(start, 8, Dir::Out),
            // F_GET_RW_HINT, F_SET_RW_HINT and the same for the description.
            1035 | 1037 => self.record(start, 8, Dir::Out),
            1036 | 1038 => self.record(start, 8, Dir::In),
            _ => GO_ON,
        }
    }

    pub(super) fn prctl(&mut self, index: usize, start: u64) -> Flow {
        let option = self.args[0] as u32;
        match (option, index) {
            (
                prctl::PR_GET_PDEATHSIG
                | prctl::PR_GET_UNALIGN
                | prctl::PR_GET_FPEMU
                | prctl::PR_GET_FPEXC
                | prctl::PR_GET_ENDIAN
                | prctl::PR_GET_TSC
                | prctl::PR_GET_CHILD_SUBREAPER,
                1,
            ) => self.record(start, 4, Dir::Out),
            (prctl::PR_SET_NAME, 1) => self.text(start, 15),
            (prctl::PR_GET_NAME, 1) => self.record(start, 16, Dir::Out),
            (prctl::PR_GET_TID_ADDRESS, 1) => self.record(start, 8, Dir::Out),
            (prctl::PR_GET_AUXV, 1) => self.data(start, self.args[2], Dir::Out),
            (prctl::PR_SET_SECCOMP, 2) if self.args[1] == 2 => self.filter(start),
            (prctl::PR_SET_MM, 2) => self.prctl_mm(start),
            (prctl::PR_SCHED_CORE, 4) if self.args[1] == 0 => self.record(start, 8, Dir::Out),
            (prctl::PR_SET_VMA, 4) if self.args[1] == 0 => self.text(start, 80),
            (prctl::PR_SET_SYSCALL_USER_DISPATCH, 4) => self.area(start, 1, Dir::In, Kind::Later),
            _ => GO_ON,
        }
    }

    fn prctl_mm(&mut self, start: u64) -> Flow {
        match self.args[1] as u32 {
            prctl::PR_SET_MM_AUXV => self.record(start, self.args[3].min(4096), Dir::In),
            prctl::PR_SET_MM_MAP => {
                // The kernel takes one size only; then the auxiliary vector at 88, its size at 96.
                if self.args[3] != MM_MAP {
                    return GO_ON;
                }
                self.record(start, MM_MAP, Dir::In)?;
                let len = self.memory.u32(start, 96).unwrap_or(0).min(4096);
                self.behind(start, 88, len, Dir::In)
            }
            prctl::PR_SET_MM_MAP_SIZE => self.record(start, 4, Dir::Out),
            _ => GO_ON,
        }
    }

    pub(super) fn arch_prctl(&mut self, start: u64) -> Flow {
        match self.args[0] as u32 {
            // ARCH_GET_FS, ARCH_GET_GS; ARCH_GET_XCOMP_*; ARCH_GET_UNTAG_MASK and
            // ARCH_GET_MAX_TAG_BITS; ARCH_SHSTK_STATUS.
            0x1003 | 0x1004 | 0x1021 | 0x1022 | 0x1024 | 0x4001 | 0x4003 | 0x5005 => {
                self.record(start, 8, Dir::Out)
            }
            _ => GO_ON,
        }
    }

    pub(super) fn futex(&mut self, index: usize, start: u64) -> Flow {
        use general::*;
        let operation = self.args[1] as u32;
        let command = operation & FUTEX_COMMAND;
        match index {
            0 => match command {
                FUTEX_LOCK_PI | FUTEX_LOCK_PI2 | FUTEX_TRYLOCK_PI | FUTEX_UNLOCK_PI => {
                    self.area(start, 4, Dir::Both, Kind::Word)
                }
                _ => self.futex_word(start, operation),
            },
            3 => match command {
                FUTEX_WAIT
                | FUTEX_WAIT_BITSET
                | FUTEX_LOCK_PI
                | FUTEX_LOCK_PI2
                | FUTEX_WAIT_REQUEUE_PI => self.record(start, 16, Dir::In),
                _ => GO_ON,
            },
            _ => match command {
                FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => self.futex_word(start, operation),
                FUTEX_WAKE_OP | FUTEX_WAIT_REQUEUE_PI | FUTEX_CMP_REQUEUE_PI => {
                    self.area(start, 4, Dir::Both, Kind::Word)
                }
                _ => GO_ON,
            },
        }
    }

    /// A word to wait for. One that processes share is looked up by its page, as for writing; of one
    /// that is private to the process the kernel only reads the value.
    pub(super) fn futex_word(&mut self, start: u64, flags: u32) -> Flow {
        let dir = if flags & general::FUTEX_PRIVATE_FLAG != 0 { Dir::In } else { Dir::Both };
        self.area(start, 4, dir, Kind::Word)
    }

    /// `futex_waitv`'s array, or the two of `futex_requeue`.
    pub(super) fn futex_vector(&mut self, start: u64, count: Option<u8>) -> Flow {
        const MOST: u64 = 128;
        const EACH: u64 = 24;
        let count = count.map_or(2, |arg| u64::from(self.args[arg as usize] as u32));
        if count > MOST {
            return GO_ON;
        }
        self.record(start, count * EACH, Dir::In)?;
        for i in 0..count {
            let Some(word) = self.memory.u64(start, i * EACH + 8) else { return GO_ON };
            let Some(flags) = self.memory.u32(start, i * EACH + 16) else { return GO_ON };
            // All are of four bytes; the flags have numbers for other sizes, which are refused.
            self.futex_word(word, flags as u32)?;
        }
        GO_ON
    }

    pub(super) fn semctl(&mut self, start: u64) -> Flow {
        match self.args[2] as u32 {
            IPC_SET => self.record(start, 104, Dir::In),
            // IPC_STAT, SEM_STAT, SEM_STAT_ANY; IPC_INFO, SEM_INFO.
            IPC_STAT | 18 | 20 => self.record(start, 104, Dir::Out),
            IPC_INFO | 19 => self.record(start, 40, Dir::Out),
            // GETALL, SETALL: a short for each semaphore, of which only the kernel knows the number.
            13 => self.data(start, SEMAPHORES * 2, Dir::Out),
            17 => self.data(start, SEMAPHORES * 2, Dir::In),
            _ => GO_ON,
        }
    }

    pub(super) fn shmctl(&mut self, start: u64) -> Flow {
        match self.args[1] as u32 {
            IPC_SET => self.record(start, 112, Dir::In),
            IPC_STAT | 13 | 15 => self.record(start, 112, Dir::Out),
            IPC_INFO => self.record(start, 72, Dir::Out),
            14 => self.record(start, 48, Dir::Out),
            _ => GO_ON,
        }
    }

    pub(super) fn msgctl(&mut self, start: u64) -> Flow {
        match self.args[1] as u32 {
            IPC_SET => self.record(start, 120, Dir::In),
            IPC_STAT | 11 | 13 => self.record(start, 120, Dir::Out),
            IPC_INFO | 12 => self.record(start, 32, Dir::Out),
            _ => GO_ON,
        }
    }

    pub(super) fn keyctl(&mut self, index: usize, start: u64) -> Flow {
        const TYPE: u64 = 32;
        const TEXT: u64 = 4096;
        // `len` bytes, of which the kernel takes none if they are more than a megabyte.
        let len = self.args[3];
        match (self.args[0] as u32, index) {
            // JOIN_SESSION_KEYRING.
            (1, 1) => self.text(start, TEXT),
            // UPDATE, INSTANTIATE.
            (2 | 12, 2) if len <= 1 << 20 => self.record(start, len, Dir::In),
            // DESCRIBE, READ, GET_SECURITY.
            (6 | 11 | 17, 2) => self.data(start, len, Dir::Out),
            // SEARCH, RESTRICT_KEYRING.
            (10, 2) | (29, 2) => self.text(start, TYPE),
            (10, 3) | (29, 3) => self.text(start, TEXT),
            // INSTANTIATE_IOV.
            (20, 2) => self.iovec(start, len, Dir::In),
            // DH_COMPUTE.
            (23, 1) => self.record(start, 12, Dir::In),
            (23, 2) => self.data(start, len, Dir::Out),
            (23, 4) => self.key_derivation(start),
            // PKEY_QUERY, PKEY_ENCRYPT, PKEY_DECRYPT, PKEY_SIGN, PKEY_VERIFY.
            (24, 3) | (25..=28, 2) => self.text(start, TEXT),
            (24, 4) => self.record(start, 56, Dir::Out),
            (25..=28, 1) => self.record(start, 40, Dir::In),
            (25..=28, 3) => self.key_data(start, 4, Dir::In),
            (25..=27, 4) => self.key_data(start, 8, Dir::Out),
            (28, 4) => self.key_data(start, 8, Dir::In),
            // CAPABILITIES.
            (31, 1) => self.data(start, self.args[2], Dir::Out),
            _ => GO_ON,
        }
    }

    /// Data whose size is in the parameters of a public key operation.
    fn key_data(&mut self, start: u64, size_at: u64, dir: Dir) -> Flow {
        let len = self.memory.u32(self.args[1], size_at).unwrap_or(0);
        self.data(start, len, dir)
    }

    fn key_derivation(&mut self, start: u64) -> Flow {
        self.record(start, 56, Dir::In)?;
        if let Some(hash) = self.memory.u64(start, 0) {
            self.text(hash, 128)?;
        }
        let len = self.memory.u32(start, 16).unwrap_or(0);
        self.behind(start, 8, len, Dir::In)
    }

    pub(super) fn quotactl(&mut self, start: u64, command: u32) -> Flow {
        match command >> 8 {
            0x80_0002 => self.text(start, 4096),
            0x80_0004 => self.record(start, 4, Dir::Out),
            0x80_0005 => self.record(start, 24, Dir::Out),
            0x80_0006 => self.record(start, 24, Dir::In),
            0x80_0007 | 0x80_0009 => self.record(start, 72, Dir::Out),
            0x80_0008 => self.record(start, 72, Dir::In),
            // XFS's own.
            0x5801 | 0x5802 | 0x5806 => self.record(start, 4, Dir::In),
            0x5803 | 0x5809 => self.record(start, 112, Dir::Out),
            0x5804 => self.record(start, 112, Dir::In),
            0x5805 => self.record(start, 80, Dir::Out),
            0x5808 => self.record(start, 160, Dir::Both),
            _ => GO_ON,
        }
    }

    pub(super) fn epoll_ctl(&mut self, start: u64) -> Flow {
        match self.args[1] as u32 {
            general::EPOLL_CTL_DEL => GO_ON,
            _ => self.record(start, 12, Dir::In),
        }
    }

    pub(super) fn kcmp(&mut self, start: u64) -> Flow {
        // KCMP_EPOLL_TFD.
        if self.args[2] as u32 != 7 {
            return GO_ON;
        }
        self.record(start, 12, Dir::In)
    }

    pub(super) fn sysfs(&mut self, index: usize, start: u64) -> Flow {
        match (self.args[0] as u32, index) {
            (1, 1) => self.text(start, 4096),
            // The name of a file system, of unknown length.
            (2, 2) => self.data(start, 256, Dir::Out),
            _ => GO_ON,
        }
    }

    pub(super) fn syslog(&mut self, start: u64) -> Flow {
        match self.args[0] as u32 {
            2..=4 => self.data(start, (self.args[2] as i32).max(0) as u64, Dir::Out),
            _ => GO_ON,
        }
    }

    pub(super) fn modify_ldt(&mut self, start: u64) -> Flow {
        match self.args[0] as u32 {
            0 | 2 => self.data(start, self.args[2], Dir::Out),
            1 | 0x11 if self.args[2] == 16 => self.record(start, 16, Dir::In),
            _ => GO_ON,
        }
    }

    pub(super) fn reboot(&mut self, start: u64) -> Flow {
        // LINUX_REBOOT_CMD_RESTART2.
        if self.args[2] as u32 != 0xa1b2_c3d4 {
            return GO_ON;
        }
        self.text(start, 255)
    }

    pub(super) fn mq_open(&mut self, start: u64) -> Flow {
        if self.args[1] as u32 & general::O_CREAT == 0 {
            return GO_ON;
        }
        self.record(start, 64, Dir::In)
    }

    pub(super) fn fsconfig(&mut self, start: u64) -> Flow {
        match self.args[1] as u32 {
            // SET_STRING, SET_BINARY, SET_PATH, SET_PATH_EMPTY.
            1 => self.text(start, 256),
            2 => match self.args[4] as i32 {
                len @ 1..=0x10_0000 => self.record(start, len as u64, Dir::In),
                _ => GO_ON,
            },
            3 | 4 => self.text(start, 4096),
            _ => GO_ON,
        }
    }

    pub(super) fn landlock_rule(&mut self, start: u64) -> Flow {
        match self.args[1] as u32 {
            1 => self.record(start, 12, Dir::In),
            2 => self.record(start, 16, Dir::In),
            _ => GO_ON,
        }
    }

    pub(super) fn mount_id(&mut self, start: u64) -> Flow {
        // AT_HANDLE_MNT_ID_UNIQUE.
        let len = if self.args[4] & 1 != 0 { 8 } else { 4 };
        self.record(start, len, Dir::Out)
    }

    pub(super) fn seccomp(&mut self, start: u64) -> Flow {
        match self.args[0] as u32 {
            1 => self.filter(start),
            2 => self.record(start, 4, Dir::In),
            3 => self.record(start, 6, Dir::Out),
            _ => GO_ON,
        }
    }

    pub(super) fn ptrace(&mut self, index: usize, start: u64) -> Flow {
        let (request, addr) = (self.args[0] as u32, self.args[2]);
        let data = index == 3;
        match request {
            // PEEKTEXT, PEEKDATA, PEEKUSR; GETEVENTMSG, GETSIGMASK.
            1..=3 | 0x4201 | 0x420a if data => self.record(start, 8, Dir::Out),
            12 if data => self.record(start, 216, Dir::Out),
            13 if data => self.record(start, 216, Dir::In),
            14 if data => self.record(start, 512, Dir::Out),
            15 if data => self.record(start, 512, Dir::In),
            25 if data => self.record(start, 16, Dir::Out),
            26 if data => self.record(start, 16, Dir::In),
            // ARCH_PRCTL.
            30 if !data => self.record(start, 8, Dir::Out),
            0x4202 if data => self.record(start, 128, Dir::Out),
            0x4203 if data => self.record(start, 128, Dir::In),
            // GETREGSET, SETREGSET: an iovec, whose length is written back.
            0x4204 | 0x4205 if data => {
                self.record(start, 16, Dir::Both)?;
                let base = self.memory.u64(start, 0).unwrap_or(0);
                let len = self.memory.u64(start, 8).unwrap_or(0);
                self.data(base, len, if request == 0x4204 { Dir::Out } else { Dir::In })
            }
            // PEEKSIGINFO.
            0x4209 if !data => self.record(start, 16, Dir::In),
            0x4209 => {
                let count = self.memory.int(addr, 12).unwrap_or(0).min(VECTORS);
                self.data(start, count * 128, Dir::Out)
            }
            0x420b if data => self.record(start, 8, Dir::In),
            // SECCOMP_GET_FILTER: as many instructions as the filter has.
            0x420c if data => self.data(start, 4096 * 8, Dir::Out),
            0x420d if data => self.record(start, addr.min(4096), Dir::Both),
            // GET_SYSCALL_INFO, GET_RSEQ_CONFIGURATION, GET_SYSCALL_USER_DISPATCH_CONFIG.
            0x420e | 0x420f | 0x4211 if data => self.data(start, addr.min(4096), Dir::Out),
            0x4210 | 0x4212 if data => self.data(start, addr.min(4096), Dir::In),
            _ => GO_ON,
        }
    }
}

const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_INFO: u32 = 3;
/// The most semaphores in a set, by default.
const SEMAPHORES: u64 = 32000;
/// `prctl_mm_map`.
const MM_MAP: u64 = 104;

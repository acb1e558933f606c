//! The messages of the tree's processes to the supervisor.
//!
//! A message is one packet on the socket. The host adds the sender's credentials, which identify
//! the process, so no process can speak for another.

/// A message to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The thread named in the slot is about to execute a program. It waits on the slot's word
    /// for [`ask::SEIZED`](crate::ask::SEIZED) or [`ask::REFUSED`](crate::ask::REFUSED).
    Exec {
        /// The sender's slot.
        slot: u32,
    },
    /// The program could not be executed; the sender continues as before.
    Cancel {
        /// The sender's slot.
        slot: u32,
    },
    /// The sender is short of frames: the process with the most should give some up.
    Reclaim {
        /// The sender's slot.
        slot: u32,
    },
    /// The sender has begun, as a child for which its parent took this slot.
    Born {
        /// The sender's slot.
        slot: u32,
    },
    /// The sender evicts, and wants the compressor.
    Compress {
        /// The sender's slot.
        slot: u32,
    },
    /// The sender wants to access the memory of another process, which should start its server.
    Serve {
        /// The other process's slot.
        slot: u32,
    },
}

impl Message {
    /// The length of every message.
    pub const LEN: usize = 8;

    /// The packet.
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, slot) = match self {
            Self::Exec { slot } => (1_u32, slot),
            Self::Cancel { slot } => (2, slot),
            Self::Born { slot } => (3, slot),
            Self::Reclaim { slot } => (4, slot),
            Self::Compress { slot } => (5, slot),
            Self::Serve { slot } => (6, slot),
        };
        (kind as u64 | (slot as u64) << 32).to_le_bytes()
    }

    /// The message in a packet, or `None` if it has none.
    pub fn from_bytes(packet: &[u8]) -> Option<Self> {
        let word = u64::from_le_bytes(packet.try_into().ok()?);
        let slot = (word >> 32) as u32;
        match word as u32 {
            1 => Some(Self::Exec { slot }),
            2 => Some(Self::Cancel { slot }),
            3 => Some(Self::Born { slot }),
            4 => Some(Self::Reclaim { slot }),
            5 => Some(Self::Compress { slot }),
            6 => Some(Self::Serve { slot }),
            _ => None,
        }
    }
}

/// The signal by which the supervisor asks a process to give up frames: `SIGSYS`, which the runtime
/// handles and never blocks. The signal kills by default, so it only goes to a process with frames,
/// whose runtime has begun.
pub const RECLAIM_SIGNAL: i32 = 31;
/// The signal's value, which distinguishes it from the program's own signals.
pub const RECLAIM_VALUE: u64 = 0x7066_7072_6573_7331;
/// The value of the same signal where it asks a process to start its server.
pub const SERVE_VALUE: u64 = 0x7066_7365_7276_6531;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        for message in [
            Message::Exec { slot: 0 },
            Message::Cancel { slot: 4095 },
            Message::Born { slot: 7 },
            Message::Compress { slot: 1 },
            Message::Serve { slot: 2 },
        ] {
            assert_eq!(Message::from_bytes(&message.to_bytes()), Some(message));
        }
        for packet in [&[][..], &[1; 7], &[1; 9], &[0; 8], &[9, 0, 0, 0, 1, 0, 0, 0]] {
            assert_eq!(Message::from_bytes(packet), None, "{packet:?}");
        }
    }
}

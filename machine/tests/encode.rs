//! Spec F3: what an entry holds comes back as it was, and what does not fit is refused.

use pagefault_machine::encode::{EncodeError, Limits, alpha, ia32, pae, x86_64};
use pagefault_machine::{Entry, Frame, Mode, Protection, SwapSlot};
use proptest::prelude::*;

/// Any entry within `limits`.
fn entries(limits: Limits) -> impl Strategy<Value = Entry> {
    let present = (0..=limits.frame, 0..8u8, any::<bool>(), any::<bool>()).prop_map(
        |(frame, rights, accessed, dirty)| Entry::Present {
            frame: Frame(frame),
            protection: Protection::from_bits_truncate(rights),
            accessed,
            dirty,
        },
    );
    let swap = (0..=limits.area, 1..=limits.slot)
        .prop_map(|(area, offset)| Entry::Swap(SwapSlot { area, offset }));
    let file = (0..=limits.file_index).prop_map(Entry::File);
    prop_oneof![Just(Entry::None), present, swap, file, extremes(limits)]
}

/// The corners, which random numbers rarely hit.
fn extremes(limits: Limits) -> impl Strategy<Value = Entry> {
    prop::sample::select(vec![
        Entry::File(0),
        Entry::File(limits.file_index),
        Entry::Swap(SwapSlot { area: 0, offset: 1 }),
        Entry::Swap(SwapSlot { area: limits.area, offset: limits.slot }),
        present(limits.frame, Protection::all()),
        present(0, Protection::empty()),
    ])
}

fn present(frame: u32, protection: Protection) -> Entry {
    Entry::Present { frame: Frame(frame), protection, accessed: false, dirty: false }
}

fn with_effective(entry: Entry, effective: impl Fn(Protection) -> Protection) -> Entry {
    match entry {
        Entry::Present { frame, protection, accessed, dirty } => {
            Entry::Present { frame, protection: effective(protection), accessed, dirty }
        }
        other => other,
    }
}

proptest! {
    #[test]
    fn x86_64_round_trip(entry in entries(x86_64::LIMITS)) {
        let raw = x86_64::encode(entry, Mode::User).unwrap();
        prop_assert_eq!(x86_64::decode(raw), with_effective(entry, x86_64::effective));
        // The processor must not use what is not present, and must not meet reserved bits.
        let usable = matches!(entry, Entry::Present { protection, .. } if !protection.is_empty());
        prop_assert_eq!(raw & 1 == 1, usable);
        prop_assert!(!usable || raw & x86_64::RESERVED == 0);
    }

    #[test]
    fn ia32_round_trip(entry in entries(ia32::LIMITS)) {
        let raw = ia32::encode(entry, Mode::User).unwrap();
        prop_assert_eq!(ia32::decode(raw), with_effective(entry, ia32::effective));
    }

    #[test]
    fn pae_round_trip(entry in entries(pae::LIMITS)) {
        let raw = pae::encode(entry, Mode::User).unwrap();
        prop_assert_eq!(pae::decode(raw), with_effective(entry, pae::effective));
        // Spec F3: the low word of a swap entry is zero, of a file entry 0x40.
        match entry {
            Entry::Swap(_) => prop_assert_eq!(raw as u32, 0),
            Entry::File(_) => prop_assert_eq!(raw as u32, 0x40),
            _ => {}
        }
    }

    #[test]
    fn alpha_round_trip(entry in entries(alpha::LIMITS)) {
        prop_assert_eq!(alpha::decode(alpha::encode(entry).unwrap()), entry);
    }

    #[test]
    fn linux_2_0_swap_round_trip(area in 0..128u8, offset in 1..1u32 << 24) {
        let slot = SwapSlot { area, offset };
        let raw = ia32::encode_swap_r20(slot).unwrap();
        prop_assert_eq!(ia32::decode_swap_r20(raw), Some(slot));
    }

    #[test]
    fn every_word_decodes_to_something_that_encodes(raw in any::<u64>()) {
        // A corrupt word may decode to a slot 0, which is refused; nothing panics.
        let entry = x86_64::decode(raw);
        let again = x86_64::encode(entry, Mode::User);
        let refused = matches!(entry, Entry::Swap(SwapSlot { offset: 0, .. }));
        prop_assert!(refused || again.is_ok_and(|raw| x86_64::decode(raw) == entry));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let user = Mode::User;
    let swap = |area, offset| Entry::Swap(SwapSlot { area, offset });
    assert_eq!(x86_64::encode(Entry::File(1 << 34), user), Err(EncodeError::FileIndex));
    assert_eq!(ia32::encode(Entry::File(1 << 29), user), Err(EncodeError::FileIndex));
    assert_eq!(pae::encode(Entry::File(1 << 32), user), Err(EncodeError::FileIndex));
    assert_eq!(alpha::encode(Entry::File(1 << 32)), Err(EncodeError::FileIndex));
    assert_eq!(ia32::encode(swap(0, 1 << 24), user), Err(EncodeError::Slot));
    assert_eq!(pae::encode(swap(0, 1 << 27), user), Err(EncodeError::Slot));
    assert_eq!(alpha::encode(swap(0, 1 << 24)), Err(EncodeError::Slot));
    assert_eq!(x86_64::encode(swap(3, 0), user), Err(EncodeError::Slot));
    assert_eq!(x86_64::encode(swap(32, 1), user), Err(EncodeError::Area));
    assert_eq!(ia32::encode(present(1 << 20, Protection::READ), user), Err(EncodeError::Frame));
    assert_eq!(ia32::encode_swap_r20(SwapSlot { area: 128, offset: 1 }), Err(EncodeError::Area));
}

#[test]
fn known_words() {
    let user = Mode::User;
    let slot = Entry::Swap(SwapSlot { area: 5, offset: 0x1234 });
    assert_eq!(x86_64::encode(slot, user), Ok(0x12_340a));
    assert_eq!(ia32::encode(slot, user), Ok(0x12_340a));
    assert_eq!(pae::encode(slot, user), Ok((0x1234 << 5 | 5) << 32));
    assert_eq!(alpha::encode(slot), Ok(0x1234 << 40 | 5 << 32));
    assert_eq!(x86_64::encode(Entry::File(0x1234), user), Ok(0x123_4040));
    assert_eq!(ia32::encode(Entry::File(0x1234), user), Ok(0x91 << 8 | 0x14 << 1 | 0x40));
    assert_eq!(alpha::encode(Entry::File(7)), Ok(7 << 32 | 1 << 19));
    // P, RW, US, frame 9, NX.
    let writable = present(9, Protection::READ | Protection::WRITE);
    assert_eq!(x86_64::encode(writable, user), Ok(1 << 63 | 9 << 12 | 7));
    assert_eq!(ia32::encode(writable, user), Ok(9 << 12 | 7));
}

#[test]
fn prot_none_counts_as_present_although_the_processor_may_not_use_it() {
    let entry = Entry::Present {
        frame: Frame(77),
        protection: Protection::empty(),
        accessed: true,
        dirty: true,
    };
    let raw = x86_64::encode(entry, Mode::User).unwrap();
    assert_eq!(raw & 1, 0);
    assert_eq!(raw & 1 << 7, 1 << 7);
    // Dirty and file are the same bit; bit 7 decides which is meant.
    assert_eq!(x86_64::decode(raw), entry);
}

#[test]
fn kernel_entries_are_global_and_not_for_user_mode() {
    let entry = present(3, Protection::READ | Protection::WRITE);
    let raw = x86_64::encode(entry, Mode::Kernel).unwrap();
    let bits = x86_64::Bits::from_bits_truncate(raw);
    assert!(bits.contains(x86_64::Bits::GLOBAL));
    assert!(!bits.contains(x86_64::Bits::USER));
    assert_eq!(x86_64::decode(raw), entry);
}

//! Where functions begin, from the table that a program needs to unwind its stack.
//!
//! Stripping leaves `.eh_frame_hdr`: it is loaded with the program. The Linux Standard Base, "Exception
//! Frames", describes it.

/// The pointer encodings that linkers use: 4 bytes, unsigned or signed.
const FOUR_BYTES: [u8; 2] = [0x03, 0x0b];
/// 4 bytes, signed, relative to the section.
const FROM_SECTION: u8 = 0x3b;
const VERSION: u8 = 1;
/// Version and encodings, a pointer, and the number of entries.
const HEAD: usize = 12;
/// A function's beginning, and the place of its unwind data.
const ENTRY: usize = 8;

/// The addresses at which functions begin, in ascending order. `section` is the address of the data. `None` if
/// the table is encoded otherwise.
pub fn begins(data: &[u8], section: u64) -> Option<Vec<u64>> {
    let [VERSION, pointer, number, FROM_SECTION] = *data.first_chunk()? else { return None };
    if !FOUR_BYTES.contains(&(pointer & 0x0f)) || !FOUR_BYTES.contains(&number) {
        return None;
    }
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u32::from_le_bytes(*word));
    let count = word(data.get(8..)?)? as usize;
    let entries = data.get(HEAD..)?.chunks_exact(ENTRY).take(count);
    let begin = |entry| Some(section.wrapping_add_signed(i64::from(word(entry)?.cast_signed())));
    let mut begins: Vec<u64> = entries.filter_map(begin).collect();
    begins.sort_unstable();
    Some(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(encoding: u8) -> Vec<u8> {
        let mut data = vec![1, 0x1b, 0x03, encoding];
        for word in [100_i32, 2, -0x20, 500, 0x40, 600, 7] {
            data.extend(word.to_le_bytes());
        }
        data
    }

    #[test]
    fn the_table_says_where_functions_begin() {
        assert_eq!(begins(&table(0x3b), 0x1000), Some(vec![0xfe0, 0x1040]));
    }

    #[test]
    fn what_is_not_such_a_table_says_nothing() {
        assert_eq!(begins(&table(0x1b), 0x1000), None);
        assert_eq!(begins(&[], 0), None);
        assert_eq!(begins(&table(0x3b)[..11], 0), None);
        // More entries promised than there are.
        assert_eq!(begins(&table(0x3b)[..20], 0x1000), Some(vec![0xfe0]));
    }
}

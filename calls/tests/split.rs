//! Long transfers in pieces: on the host they bring what one call brings.

use pagefault_calls::{File, Pieces, Rule, Shape, split};
use proptest::prelude::*;
use std::fs::File as Handle;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd};

/// Makes the call piece by piece, as a runtime does.
fn in_pieces(nr: i64, args: [u64; 6], file: File, most: u64) -> i64 {
    let pieces = split(nr as u32, &args).expect("can be split");
    let rule = pieces.rule(file);
    let vectors = match pieces.shape {
        // SAFETY: the tests pass arrays of that many vectors.
        Shape::Vectors { array, count } => unsafe {
            let array = args[array as usize] as *const [u64; 2];
            std::slice::from_raw_parts(array, args[count as usize] as usize).to_vec()
        },
        _ => Vec::new(),
    };
    let all = match pieces.shape {
        Shape::Flat { len, .. } => args[len as usize],
        Shape::Vectors { .. } => vectors.iter().map(|[_, len]| len).sum(),
        Shape::Messages { count, .. } => args[count as usize],
        Shape::Message { .. } => unreachable!("the tests split no single message"),
    };
    let mut done = 0;
    loop {
        let mut piece = pieces.piece(&args, done, most).expect("something is left");
        let mut some = [[0; 2]; 4];
        let asked = match pieces.shape {
            Shape::Flat { len, .. } => piece[len as usize],
            Shape::Messages { count, .. } => piece[count as usize],
            Shape::Message { .. } => unreachable!("the tests split no single message"),
            Shape::Vectors { array, count } => {
                let (entries, bytes) = Pieces::cut(vectors.iter().copied(), done, most, &mut some);
                piece[array as usize] = some.as_ptr() as u64;
                piece[count as usize] = entries as u64;
                bytes
            }
        };
        // SAFETY: parts of the buffers that the test passes.
        let result = unsafe {
            libc::syscall(nr, piece[0], piece[1], piece[2], piece[3], piece[4], piece[5])
        };
        if let Some(result) = Pieces::finished(rule, done, asked, all, result) {
            return result;
        }
        done += result as u64;
    }
}

fn content() -> Vec<u8> {
    (0..100_000u32).map(|i| ((i * 7) >> 3) as u8).collect()
}

fn file(content: &[u8]) -> Handle {
    // SAFETY: a new descriptor, which the handle then owns.
    let mut file = unsafe { Handle::from_raw_fd(libc::memfd_create(c"split".as_ptr(), 0)) };
    file.write_all(content).expect("writes");
    file.rewind().expect("seeks");
    file
}

#[test]
fn a_file_is_read_to_its_end() {
    let (content, mut buffer) = (content(), vec![0u8; 120_000]);
    let file = file(&content);
    let args = [file.as_raw_fd() as u64, buffer.as_mut_ptr() as u64, 120_000, 0, 0, 0];
    assert_eq!(in_pieces(libc::SYS_read, args, File::Storage, 8192), 100_000);
    assert_eq!(buffer[..100_000], content);
    assert_eq!(in_pieces(libc::SYS_read, args, File::Storage, 8192), 0);
}

#[test]
fn vectors_at_a_position_are_filled_in_order() {
    let (content, mut one, mut two) = (content(), vec![0u8; 30_001], vec![0u8; 20_000]);
    let file = file(&content);
    let vectors = [[one.as_mut_ptr() as u64, 30_001], [0, 0], [two.as_mut_ptr() as u64, 20_000]];
    for nr in [libc::SYS_preadv, libc::SYS_preadv2] {
        let args = [file.as_raw_fd() as u64, vectors.as_ptr() as u64, 3, 17, 0, 0];
        assert_eq!(in_pieces(nr, args, File::Storage, 4096), 50_001);
        assert_eq!(one, content[17..30_018]);
        assert_eq!(two, content[30_018..50_018]);
    }
}

#[test]
fn writing_in_pieces_leaves_what_one_write_leaves() {
    let content = content();
    let mut out = file(&[]);
    let args = [out.as_raw_fd() as u64, content.as_ptr() as u64, 100_000, 5, 0, 0];
    assert_eq!(in_pieces(libc::SYS_pwrite64, args, File::Storage, 4096), 100_000);
    let mut back = Vec::new();
    out.read_to_end(&mut back).expect("reads");
    assert_eq!(back[5..], content);
}

#[test]
fn a_pipe_answers_what_is_there_and_does_not_wait_for_more() {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&[3; 10_000]).expect("fits");
    let mut buffer = vec![0u8; 50_000];
    let args = [reader.as_raw_fd() as u64, buffer.as_mut_ptr() as u64, 50_000, 0, 0, 0];
    // A second piece would wait forever once the pipe is empty.
    let mut taken = 0;
    while taken < 10_000 {
        taken += in_pieces(libc::SYS_read, args, File::Pipe, 5000);
    }
    assert_eq!(taken, 10_000);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).expect("its end"), 0);
}

#[test]
fn a_full_pipe_takes_a_part_and_says_so() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let content = content();
    // SAFETY: no memory.
    let room = unsafe {
        libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
        libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ)
    };
    let args = [writer.as_raw_fd() as u64, content.as_ptr() as u64, 100_000, 0, 0, 0];
    let written = in_pieces(libc::SYS_write, args, File::Pipe, 4096);
    assert_eq!(written, i64::from(room).min(100_000));
    drop(reader);
}

#[test]
fn random_bytes_come_in_any_number() {
    let mut buffer = vec![0u8; 100_000];
    let args = [buffer.as_mut_ptr() as u64, 100_000, 0, 0, 0, 0];
    assert_eq!(in_pieces(libc::SYS_getrandom, args, File::Messages, 4096), 100_000);
    assert!(buffer[99_900..].iter().any(|&byte| byte != 0));
}

#[test]
fn messages_are_not_cut() {
    let rule = |nr: i64, args: [u64; 6], file| split(nr as u32, &args).map(|it| it.rule(file));
    let of_bytes = [libc::SYS_read, libc::SYS_write, libc::SYS_sendto, libc::SYS_recvfrom];
    for nr in of_bytes.into_iter().chain([libc::SYS_sendmsg, libc::SYS_recvmsg]) {
        assert_eq!(rule(nr, [0; 6], File::Messages), Some(Rule::Whole));
    }
    let (peek, all) = (libc::MSG_PEEK as u64, libc::MSG_WAITALL as u64);
    let received = |nr, flags| {
        let args =
            if nr == libc::SYS_recvmsg { [0, 0, flags, 0, 0, 0] } else { [0, 0, 0, flags, 0, 0] };
        rule(nr, args, File::Stream)
    };
    for nr in [libc::SYS_recvfrom, libc::SYS_recvmsg] {
        assert_eq!(received(nr, peek), Some(Rule::Whole));
        assert_eq!(received(nr, 0), Some(Rule::First));
        assert_eq!(received(nr, all), Some(Rule::Each));
    }
    // Calls that are one message, one answer, or one atomic write.
    for nr in [libc::SYS_msgsnd, libc::SYS_ioctl] {
        assert_eq!(split(nr as u32, &[0; 6]), None);
    }
    assert_eq!(split(libc::SYS_pwritev2 as u32, &[0, 0, 0, 0, 0, 0x40]), None);
}

proptest! {
    #[test]
    fn cut_vectors_cover_every_byte_once(
        lens in prop::collection::vec(0..40u64, 0..8),
        most in 1..50u64,
        room in 1..9usize,
    ) {
        let vectors: Vec<_> = lens.iter().enumerate().map(|(i, &n)| [i as u64 * 100, n]).collect();
        let whole: Vec<u64> = vectors.iter().flat_map(|&[base, len]| base..base + len).collect();
        let mut seen = Vec::new();
        while seen.len() < whole.len() {
            let mut into = vec![[0; 2]; room];
            let (entries, bytes) = Pieces::cut(vectors.iter().copied(), seen.len() as u64, most, &mut into);
            prop_assert!(bytes > 0 && bytes <= most);
            seen.extend(into[..entries].iter().flat_map(|&[base, len]| base..base + len));
        }
        prop_assert_eq!(seen, whole);
    }

    #[test]
    fn no_piece_leaves_the_transfer(
        nr in 0..512u32,
        args in prop::array::uniform6(any::<u64>()),
        done in any::<u64>(),
        most in any::<u64>(),
    ) {
        let Some(pieces) = split(nr, &args) else { return Ok(()) };
        let Some(piece) = pieces.piece(&args, done, most) else { return Ok(()) };
        if let Shape::Flat { buffer, len } = pieces.shape {
            let (start, taken) = (piece[buffer as usize], piece[len as usize]);
            let begun = start.wrapping_sub(args[buffer as usize]);
            prop_assert!(taken <= most && begun + taken <= args[len as usize]);
        }
    }
}

//! Statistics at the end of a run.

use crate::size::{Size, about};
use crate::status::Format;
use pagefault_control::{Ahead, Config, Control, Count, Counters, SPAN, Storage, SwapSpec};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// The statistics as text that ends with a line feed.
pub fn text(format: Format, config: &Config, control: &Control) -> String {
    match format {
        Format::Table => table(config, &control.counters, &Peaks::of(control)),
        Format::Json => format!("{:#}\n", value(config, control)),
    }
}

/// The peaks of the tree's memory, in bytes.
struct Peaks {
    resident: u64,
    /// Of compressed memory.
    compressed: u64,
    compressed_limit: u64,
    /// Of swap files.
    files: u64,
}

impl Peaks {
    fn of(control: &Control) -> Self {
        Self {
            resident: control.slots.peak() * 4096,
            compressed: control.pool.peak(),
            compressed_limit: u64::from(control.plan().spans()) * SPAN,
            files: control.files.peak(),
        }
    }
}

/// The corrections in the order of the decision tree, with their counters.
fn corrections(counters: &Counters) -> [(&'static str, &Count); 8] {
    [
        ("anonymous", &counters.anonymous),
        ("zero", &counters.zero),
        ("file", &counters.file),
        ("swap_in", &counters.swap_in),
        ("copy_on_write", &counters.copy_on_write),
        ("first_store", &counters.first_store),
        ("standby", &counters.standby),
        ("spurious", &counters.spurious),
    ]
}

/// How many bytes of pages a byte of compressed RAM held; `None` if none was used.
pub fn ratio(counters: &Counters) -> Option<f64> {
    let compressed = counters.compressed_bytes.value();
    (compressed > 0).then(|| counters.uncompressed_bytes.value() as f64 / compressed as f64)
}

/// The statistics as JSON.
pub fn value(config: &Config, control: &Control) -> Value {
    let (counters, peaks) = (&control.counters, Peaks::of(control));
    let mut faults: serde_json::Map<_, _> = corrections(counters)
        .into_iter()
        .map(|(name, count)| (name.to_owned(), json!(count.value())))
        .collect();
    faults.insert("minor".into(), json!(counters.minor.value()));
    faults.insert("major".into(), json!(counters.major.value()));
    let areas = config.swap.iter().zip(counters.pages_out.iter().zip(&counters.pages_in));
    let swap: Vec<_> = areas
        .map(|(spec, (out, back))| {
            json!({
                "area": area(spec),
                "pages_out": out.value(),
                "pages_in": back.value(),
            })
        })
        .collect();
    let time = &counters.fault_time;
    json!({
        "programs": counters.programs.value(),
        "forks": counters.forks.value(),
        "limit_bytes": config.limit_bytes,
        "peak_resident_bytes": peaks.resident,
        "faults": faults,
        "takeovers": counters.takeovers.value(),
        "taken_over_pages": counters.taken_over.value(),
        "read_ahead": counters.read_ahead.brought.value(),
        "read_ahead_used": counters.read_ahead.used.value(),
        "read_ahead_wasted": counters.read_ahead.wasted.value(),
        "populated_ahead": counters.populated_ahead.brought.value(),
        "populated_ahead_used": counters.populated_ahead.used.value(),
        "populated_ahead_wasted": counters.populated_ahead.wasted.value(),
        "refused_calls": counters.refused.value(),
        "swap": swap,
        "compression_ratio": ratio(counters),
        "compressed_by_supervisor": counters.offloaded.value(),
        "compressed_memory": {
            "limit_bytes": peaks.compressed_limit,
            "peak_bytes": peaks.compressed,
        },
        "swap_files": { "peak_bytes": peaks.files },
        "fault_time_ns": {
            "count": time.count(),
            "sum": time.sum(),
            "median": time.percentile(50.0),
            "p99": time.percentile(99.0),
            "max": time.longest(),
        },
    })
}

fn table(config: &Config, counters: &Counters, peaks: &Peaks) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<28} {value}");
    };
    line("programs, forks", format!("{}, {}", counters.programs.value(), counters.forks.value()));
    line("peak resident", format!("{} of {}", about(peaks.resident), about(config.limit_bytes)));
    let (minor, major) = (counters.minor.value(), counters.major.value());
    line("faults", format!("{} ({minor} minor, {major} major)", minor + major));
    for (name, count) in corrections(counters) {
        line(&format!("  {}", name.replace('_', "-")), count.value().to_string());
    }
    line("read ahead", guesses(&counters.read_ahead));
    line("populated ahead", guesses(&counters.populated_ahead));
    let (takeovers, pages) = (counters.takeovers.value(), counters.taken_over.value());
    let taken = match takeovers + minor + major {
        0 => "nothing: the tree fitted its limit, so the kernel handled its faults".to_owned(),
        _ => format!("{pages} pages of {}", counted(takeovers, "process", "processes")),
    };
    line("taken over from the host", taken);
    line("refused calls", counters.refused.value().to_string());
    for (spec, (out, back)) in
        config.swap.iter().zip(counters.pages_out.iter().zip(&counters.pages_in))
    {
        let pages = format!("{} pages out, {} in", out.value(), back.value());
        line(&format!("swap {}", area(spec)), pages);
    }
    let ratio = ratio(counters).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    line("compression ratio", ratio);
    line("compressed by the supervisor", format!("{} pages", counters.offloaded.value()));
    let compressed = [peaks.compressed, peaks.compressed_limit].map(about);
    line("peak compressed memory", format!("{} of {}", compressed[0], compressed[1]));
    line("peak swap files", about(peaks.files));
    let time = &counters.fault_time;
    let spent = [time.percentile(50.0), time.percentile(99.0), time.longest()];
    let [median, p99, longest] = spent.map(Duration::from_nanos);
    let sum = Duration::from_nanos(time.sum());
    line(
        "time in faults",
        format!("{sum:.3?} (median {median:.1?}, p99 {p99:.1?}, max {longest:.1?})"),
    );
    format!("pagefault:\n{text}")
}

fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Pages brought ahead of need, and how many were used.
fn guesses(ahead: &Ahead) -> String {
    let Ahead { brought, used, wasted } = ahead;
    let [brought, used, wasted] = [brought, used, wasted].map(Count::value);
    format!("{brought} pages ({used} used, {wasted} wasted)")
}

/// A swap area as on the command line.
pub fn area(spec: &SwapSpec) -> String {
    let place = match &spec.storage {
        Storage::Ram => "ram".to_owned(),
        Storage::File(path) => format!("file:{}", String::from_utf8_lossy(path)),
        Storage::Temporary(_) => "file".to_owned(),
    };
    match spec.bytes {
        None => place,
        Some(bytes) => format!("{place}:{}", Size(bytes)),
    }
}

//! The lessons: scripts with a text beside them, in `script/lessons/`.

/// A script that shows one thing, and a text about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The name on the command line.
    pub name: &'static str,
    /// The script.
    pub script: &'static str,
    /// The text, in Markdown; its first line is `# ` and the title.
    pub prose: &'static str,
}

macro_rules! lessons {
    ($($name:literal,)+) => {
        /// All lessons, in the best order to read them.
        pub const ALL: &[Lesson] = &[$(Lesson {
            name: $name,
            script: include_str!(concat!("../../script/lessons/", $name, ".pf")),
            prose: include_str!(concat!("../../script/lessons/", $name, ".md")),
        },)+];
    };
}

lessons! {
    "regions",
    "demand-zero",
    "missing-table",
    "file-pages",
    "read-ahead",
    "executable",
    "stack",
    "heap",
    "sigsegv",
    "kernel-bad-area",
    "erratum",
    "kernel-table",
    "swap",
    "swap-area",
    "swap-off",
    "copy-on-write",
    "debugger",
    "nonlinear",
    "device",
    "two-cpus",
    "second-chance",
    "locked",
    "background-reclaim",
    "out-of-memory",
    "victim",
}

impl Lesson {
    /// The lesson with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|lesson| lesson.name == name)
    }

    /// The title.
    pub fn title(&self) -> &'static str {
        self.prose.lines().next().unwrap_or("").trim_start_matches("# ")
    }

    /// The text without its title.
    pub fn text(&self) -> &'static str {
        self.prose.split_once('\n').map_or("", |(_, text)| text.trim())
    }
}

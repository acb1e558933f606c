//! What the tests share.

use pagefault_explain::lessons::Lesson;
use pagefault_explain::model::Explanation;
use pagefault_explain::record::{Request, record};
use pagefault_script::ast::Arch;

/// Every processor; the build with pages of 8 KiB runs Alpha's lessons.
#[allow(dead_code, reason = "not every test asks for other processors")]
pub const PROCESSORS: [Arch; 4] = Arch::ALL;

/// A lesson as `pagefault explain --lesson` records it.
pub fn lesson(lesson: &Lesson, arch: Arch) -> Explanation {
    let request = Request {
        title: lesson.title().into(),
        prose: lesson.text().into(),
        source: lesson.script.into(),
        arch: Some(arch),
        cpus: None,
    };
    record(&request).unwrap_or_else(|error| panic!("{}: {error}", lesson.name))
}

use super::*;

#[test]
fn time_without_a_processor_is_told_apart() {
    assert_eq!(wait_in("640017 234750 2\n"), Some(Duration::from_nanos(234_750)));
    assert_eq!(wait_in(""), None);
    // Never more than what has passed, and nothing of a process that is gone.
    let all = Duration::from_secs(1);
    assert!(starved(std::process::id(), all) <= all);
    assert_eq!(starved(std::process::id(), Duration::ZERO), Duration::ZERO);
    assert_eq!(starved(u32::MAX, all), Duration::ZERO);
}

//! A frame of the live view.

use super::Screen;
use super::model::{CORRECTIONS, View};
use crate::size::about;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Padding, Paragraph, Row, Table};

/// The colours of the corrections, as on the page of a report.
const COLOURS: [Color; CORRECTIONS.len()] = [
    Color::Green,
    Color::LightGreen,
    Color::Yellow,
    Color::Red,
    Color::Magenta,
    Color::Blue,
    Color::Cyan,
    Color::DarkGray,
];

/// The width of a row of the table of trees, without the program's name.
const COLUMNS: u16 = 72;
/// The width of a row of memory and swap without its bar: a name, a size, a ratio and two rates.
const BESIDE_BAR: usize = 10 + 9 + 7 + 16;

/// The rows of the figure: the corrections, what was read ahead, the frame.
const FIGURE: u16 = CORRECTIONS.len() as u16 + 3;

/// Draws everything.
pub fn draw(screen: &Screen, frame: &mut Frame) {
    let [head, list, rest, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(list_rows(screen, frame.area())),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(screen), head);
    frame.render_widget(footer(screen), foot);
    let Some(place) = screen.place() else {
        let text = "No managed tree is running. Start one: pagefault run --memory 64M -- PROGRAM";
        frame.render_widget(Paragraph::new(text).dark_gray(), list);
        return;
    };
    frame.render_widget(table(screen, place, list), list);
    details(screen, &screen.views[place], frame, rest);
}

/// The rows of the list of trees with its heading. A long list scrolls, so that the figure below is whole.
fn list_rows(screen: &Screen, area: Rect) -> u16 {
    let beside = is_wide(area);
    let areas = screen.place().map_or(0, |place| screen.views[place].areas.len());
    let below = FIGURE + if beside { 0 } else { holdings_rows(areas) };
    let most = area.height.saturating_sub(2 + below).clamp(4, 9);
    (screen.views.len().max(1) as u16).saturating_add(1).min(most)
}

/// Whether the figure has memory and processes beside it, and not below.
const fn is_wide(area: Rect) -> bool {
    area.width >= 120
}

/// The rows of memory and swap.
const fn holdings_rows(areas: usize) -> u16 {
    3 + areas as u16
}

fn header(screen: &Screen) -> Line<'static> {
    let processes: usize = screen.views.iter().map(|view| view.processes.len()).sum();
    let trees = screen.views.len();
    let text = format!(
        " pagefault top · {trees} {} · {processes} {} · sorted by {}",
        if trees == 1 { "tree" } else { "trees" },
        if processes == 1 { "process" } else { "processes" },
        screen.order.name()
    );
    let paused = if screen.paused { "  paused " } else { "" };
    Line::from(vec![Span::from(text).bold(), Span::from(paused).black().on_yellow()])
}

fn footer(screen: &Screen) -> Line<'static> {
    if let Some(typed) = &screen.typing {
        let limit = screen.place().map(|place| screen.views[place].limit_bytes).unwrap_or_default();
        let text = format!(" New limit ({}), as in 128M: {typed}_", about(limit));
        return Line::from(text).black().on_cyan();
    }
    if let Some(message) = &screen.message {
        return Line::from(format!(" {message}")).yellow();
    }
    let keys = [("↑↓", "choose"), ("s", "sort"), ("p", "pause"), ("l", "limit"), ("q", "quit")];
    let spans = keys.into_iter().flat_map(|(key, what)| {
        [Span::from(format!(" {key} ")).reversed(), Span::from(format!(" {what}  "))]
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// The list of trees, which scrolls to the selected one.
fn table(screen: &Screen, chosen: usize, area: Rect) -> Table<'static> {
    let room = area.width.saturating_sub(COLUMNS).max(8) as usize;
    let shown = area.height.saturating_sub(1).max(1) as usize;
    let first = (chosen + 1).saturating_sub(shown);
    let rows = screen.views.iter().enumerate().skip(first).take(shown).map(|(place, view)| {
        let style = if place == chosen {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        let cells = [
            view.pid.to_string(),
            about(view.limit_bytes),
            about(view.resident_bytes),
            about(view.swapped_bytes),
            short(view.fault_rate()),
            short(view.swap_rate(|area| area.back)),
            short(view.swap_rate(|area| area.out)),
            format!("{:.0}%", view.misses * 100.0),
        ];
        let cells = cells.into_iter().map(|text| Cell::from(Line::from(text).right_aligned()));
        let program = Cell::from(clipped(without_directory(&view.program), room));
        Row::new(cells.chain([program])).style(style)
    });
    let heads = ["PID", "LIMIT", "RESIDENT", "SWAP", "FAULTS/s", "IN/s", "OUT/s", "MISS"];
    let heads = heads.into_iter().map(|head| Cell::from(Line::from(head).right_aligned()));
    let widths = [8, 8, 9, 8, 9, 8, 8, 5].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    Table::new(rows, widths)
        .header(Row::new(heads.chain([Cell::from("PROGRAM")])).style(Style::new().dark_gray()))
        .column_spacing(1)
}

/// A command line without the directory of its program.
fn without_directory(line: &str) -> &str {
    let program = line.split(' ').next().unwrap_or(line);
    &line[program.rfind('/').map_or(0, |slash| slash + 1)..]
}

/// The selected tree: the figure, its memory and its processes.
fn details(screen: &Screen, view: &View, frame: &mut Frame, area: Rect) {
    if is_wide(area) {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(55), Constraint::Fill(1)]).areas(area);
        let [memory, processes] = Layout::vertical([
            Constraint::Length(holdings_rows(view.areas.len())),
            Constraint::Fill(1),
        ])
        .areas(right);
        figure(screen, view, frame, left);
        holdings(view, frame, memory);
        members(view, frame, processes);
        return;
    }
    let [above, middle, below] = Layout::vertical([
        Constraint::Length(FIGURE),
        Constraint::Length(holdings_rows(view.areas.len())),
        Constraint::Fill(1),
    ])
    .areas(area);
    figure(screen, view, frame, above);
    holdings(view, frame, middle);
    members(view, frame, below);
}

fn card(title: &str) -> Block<'static> {
    let title = format!(" {title} ");
    Block::bordered()
        .border_style(Style::new().dark_gray())
        .title(title)
        .padding(Padding::horizontal(1))
}

/// The decision figure: what the entry says, and the faults a second of each correction.
fn figure(screen: &Screen, view: &View, frame: &mut Frame, area: Rect) {
    let block = card("Faults a second, by correction");
    let inner = block.inner(area);
    let total = view.fault_rate();
    // Label, counts and the stem.
    let room = (inner.width as usize).saturating_sub(51).max(4);
    let mut lines = Vec::new();
    for (kind, (name, (count, rate))) in CORRECTIONS.iter().zip(view.faults).enumerate() {
        let stem = if kind == 0 { format!("{:>7} ─┬─", short(total)) } else { stem(kind) };
        let share = if total > 0.0 { rate / total } else { 0.0 };
        let wide = if rate > 0.0 { ((share * room as f64) as usize).max(1) } else { 0 };
        lines.push(Line::from(vec![
            Span::from(stem).dark_gray(),
            Span::from(format!(" {name:<14}")),
            Span::from(flow(wide, screen.frame, room)).fg(COLOURS[kind]),
            Span::from(format!(" {:>7}/s", short(rate))).bold(),
            Span::from(format!(" {:>9}", short(count as f64))).dark_gray(),
        ]));
    }
    let (ahead, rate) = view.read_ahead;
    lines.push(Line::from(vec![
        Span::from(format!("{:>11} read ahead    ", "")).dark_gray(),
        Span::from(format!("{:<room$}", clipped(&outcome(view), room))).dark_gray(),
        Span::from(format!(" {:>7}/s", short(rate))),
        Span::from(format!(" {:>9}", short(ahead as f64))).dark_gray(),
    ]));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// How many of the pages read ahead were used.
fn outcome(view: &View) -> String {
    let [used, wasted] = [view.read_ahead_used, view.read_ahead_wasted];
    format!("{} used, {} wasted", short(used as f64), short(wasted as f64))
}

fn stem(kind: usize) -> String {
    let branch = if kind + 1 == CORRECTIONS.len() { "└─" } else { "├─" };
    format!("{:>8} {branch}", "")
}

/// A bar with animated flow.
fn flow(wide: usize, frame: usize, room: usize) -> String {
    let cell = |at: usize| if (at + 4 - frame % 4).is_multiple_of(4) { '▓' } else { '█' };
    let bar: String = (0..wide).map(cell).collect();
    format!("{bar:<room$}")
}

/// Resident memory against the limit, and the swap areas.
fn holdings(view: &View, frame: &mut Frame, area: Rect) {
    let block = card("Memory");
    let room = (block.inner(area).width as usize).saturating_sub(BESIDE_BAR).max(4);
    let whole = (view
        .limit_bytes
        .max(view.resident_bytes)
        .max(view.areas.iter().map(|area| area.stored_bytes).max().unwrap_or(0)))
    .max(1);
    let bar = |bytes: u64| {
        let wide = (bytes as u128 * room as u128 / u128::from(whole)) as usize;
        format!("{:<room$}", "█".repeat(wide))
    };
    let mut lines = vec![Line::from(vec![
        Span::from(format!("{:<10}", "resident")),
        Span::from(bar(view.resident_bytes)).cyan(),
        Span::from(format!(" {:>8} of {}", about(view.resident_bytes), about(view.limit_bytes)))
            .bold(),
    ])];
    for area in &view.areas {
        let ratio = view.ratio.filter(|_| area.name == "ram");
        let ratio = ratio.map_or(String::new(), |ratio| format!(" {ratio:.1}:1"));
        lines.push(Line::from(vec![
            Span::from(format!("{:<10}", clipped(&area.name, 9))),
            Span::from(bar(area.stored_bytes)).yellow(),
            Span::from(format!(" {:>8}", about(area.stored_bytes))).bold(),
            Span::from(format!("{ratio} ↑{} ↓{}", short(area.back.1), short(area.out.1)))
                .dark_gray(),
        ]));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn members(view: &View, frame: &mut Frame, area: Rect) {
    if area.height < 3 {
        return;
    }
    let block = card("Processes");
    let rows = view.processes.iter().map(|process| {
        let who = format!("{:>8}  {:<16} ", process.pid, clipped(&process.name, 16));
        let has = match process.passive {
            true => {
                format!("{:>9} at most; the kernel answers faults", about(process.charged_bytes))
            }
            false => format!(
                "{:>9} resident {:>9} in swap",
                about(process.resident_bytes),
                about(process.swapped_bytes)
            ),
        };
        Line::from(who + &has)
    });
    frame.render_widget(Paragraph::new(rows.collect::<Vec<_>>()).block(block), area);
}

/// A number in at most six characters.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{:.1}G", value / 1e9),
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e4 => format!("{:.1}k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => {
            let short: String = text.chars().take(most.saturating_sub(1)).collect();
            short + "…"
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 9999.0, 12_345.0, 7_654_321.0, 1.25e10].map(short);
        assert_eq!(shown, ["0", "9999", "12.3k", "7.7M", "12.5G"]);
    }

    #[test]
    fn a_bar_flows_and_keeps_its_width() {
        for frame in 0..8 {
            let bar = flow(6, frame, 10);
            assert_eq!(bar.chars().count(), 10);
            assert_eq!(bar.trim_end().chars().count(), 6);
        }
        assert_ne!(flow(6, 0, 10), flow(6, 1, 10));
        assert_eq!(flow(0, 3, 5), "     ");
    }

    fn view(id: u64) -> View {
        let area = crate::top::model::Area {
            name: "ram".into(),
            stored_bytes: 999 << 20,
            out: (1 << 40, 987_654.0),
            back: (1 << 40, 876_543.0),
        };
        View {
            id,
            pid: id as u32,
            user: 0,
            program: "sort".into(),
            limit_bytes: 1 << 30,
            resident_bytes: 1 << 30,
            swapped_bytes: 0,
            processes: Vec::new(),
            areas: vec![area],
            ratio: Some(63.9),
            faults: Default::default(),
            read_ahead: (0, 0.0),
            read_ahead_used: 0,
            read_ahead_wasted: 0,
            misses: 0.0,
        }
    }

    fn drawn(width: u16, height: u16, draw: impl FnOnce(&mut Frame)) -> String {
        let screen = ratatui::backend::TestBackend::new(width, height);
        let mut terminal = ratatui::Terminal::new(screen).expect("a terminal");
        terminal.draw(draw).expect("it is drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn on_a_narrow_terminal_no_rate_of_an_area_is_cut() {
        let shown = drawn(80, 4, |frame| holdings(&view(1), frame, frame.area()));
        assert!(shown.contains(" 63.9:1 ↑876.5k ↓987.7k "), "{shown}");
    }

    #[test]
    fn the_figure_is_whole_beside_a_long_list_of_trees() {
        for (width, height) in [(80, 24), (160, 24), (160, 50)] {
            let mut screen = Screen::of((1..=12).map(view).collect());
            screen.chosen = Some(12);
            let shown = drawn(width, height, |frame| draw(&screen, frame));
            for part in ["anonymous", "spurious", "read ahead", "resident", "ram", "quit"] {
                assert!(shown.contains(part), "{part} at {width} × {height}:\n{shown}");
            }
            assert!(shown.contains("      12 "), "the chosen tree is in the list:\n{shown}");
        }
    }

    #[test]
    fn long_names_are_clipped() {
        assert_eq!(clipped("sort", 4), "sort");
        assert_eq!(clipped("sorting", 4), "sor…");
    }
}

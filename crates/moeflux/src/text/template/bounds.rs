//! What a template may make. A template comes with a model, and a model from a hub is data: one that never ends, or that
//! doubles a text until memory is full, has to fail alone.
//!
//! The engine counts instructions ([`FUEL`]). It does not look at what one of them makes, so sizes are checked where values
//! are kept or grow: [`translate`](super::dialect::translate) puts filters at the operands of operators and around what `set`
//! keeps, and the function [`TICK`] into each loop; filters and methods that write text check what they are given. All that is
//! made is added up, whether or not it is kept, so that memory is bounded however values hang together.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, tests};

/// Instructions of a rendering: tens of thousands of messages in most templates.
pub(super) const FUEL: u64 = 10_000_000;
/// Time of a rendering.
const TIME: Duration = Duration::from_secs(5);
/// Bytes of a prompt, and of all that is printed on the way to it.
const OUTPUT: u64 = 64 << 20;
/// Bytes of a value.
const VALUE: usize = 16 << 20;
/// Bytes of all values that a rendering makes: the most memory that it can take.
const MADE: u64 = 448 << 20;
/// Items of a list that is kept.
const ITEMS: usize = 1 << 20;
/// Most characters that a format may pad to.
const WIDTH: usize = 100_000;

/// The filter around what is kept under a name.
pub(super) const KEPT: &str = "moeflux_kept";
/// The filter around slices.
pub(super) const SLICED: &str = "moeflux_sliced";
/// The filter around values that become one text.
pub(super) const JOINED: &str = "moeflux_joined";
/// The filter around values that are added.
pub(super) const ADDED: &str = "moeflux_added";
/// The filter around values that are walked through as a whole, with all that they hold.
pub(super) const WALKED: &str = "moeflux_walked";
/// The filter on the left side of a product, that on the right, and that on the left where the left is a product itself.
pub(super) const PRODUCT_OF: &str = "moeflux_product_of";
pub(super) const PRODUCT: &str = "moeflux_product";
pub(super) const PRODUCT_AGAIN: &str = "moeflux_product_again";
/// The function that a loop calls in each round.
pub(super) const TICK: &str = "moeflux_tick";

/// The source of an error: a limit that was reached.
#[derive(Debug, thiserror::Error)]
#[error("more {what} than {limit}")]
pub(super) struct Exceeded {
    pub(super) what: &'static str,
    pub(super) limit: u64,
}

thread_local! {
    static RENDERING: RefCell<Option<Rendering>> = const { RefCell::new(None) };
}

/// What is known of the rendering of this thread.
struct Rendering {
    /// When it has to end.
    end: Instant,
    /// Bytes that it has printed, and bytes of the values that it has made.
    printed: u64,
    made: u64,
    /// Left sides of products whose right sides are being computed.
    factors: Vec<Factor>,
    /// The last product.
    product: Factor,
}

/// A side of a product.
#[derive(Clone, Copy)]
enum Factor {
    /// How often something is repeated, if it is.
    Number(u64),
    /// Bytes, about.
    Size(u64),
}

impl Factor {
    fn of(value: &Value) -> Self {
        match value.kind() {
            ValueKind::Number => Self::Number(u64::try_from(value.clone()).unwrap_or(0)),
            // Of a list, what holds its items.
            _ => Self::Size(match value.as_str() {
                Some(text) => text.len() as u64,
                None => value.len().unwrap_or(0) as u64 * ITEM,
            }),
        }
    }

    fn times(self, other: Self) -> Self {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => Self::Number(a.saturating_mul(b)),
            (Self::Number(a) | Self::Size(a), Self::Number(b) | Self::Size(b)) => {
                Self::Size(a.saturating_mul(b))
            }
        }
    }
}

/// Bytes of an item of a list.
pub(super) const ITEM: u64 = 24;

/// Sets up an environment.
pub(super) fn install(environment: &mut Environment) {
    environment.set_fuel(Some(FUEL));
    let mut check = |name: &'static str, check: fn(&Value) -> Result<(), Error>| {
        environment.add_filter(name, move |value: Value| -> Result<Value, Error> {
            tick()?;
            check(&value)?;
            Ok(value)
        });
    };
    check(KEPT, |value| kept(value, 0));
    check(SLICED, |value| kept(value, ITEM));
    // Lists are put together when many have been added.
    check(ADDED, |value| kept(value, 1));
    check(JOINED, |value| made(weigh(value)? as u64));
    check(WALKED, |value| weigh(value).map(drop));
    check(PRODUCT_OF, |value| {
        with(|rendering| rendering.factors.push(Factor::of(value)));
        Ok(())
    });
    check(PRODUCT_AGAIN, |_| {
        with(|rendering| rendering.factors.push(rendering.product));
        Ok(())
    });
    check(PRODUCT, |value| {
        let product = with(|rendering| {
            let left = rendering.factors.pop().unwrap_or(Factor::Number(1));
            rendering.product = left.times(Factor::of(value));
            rendering.product
        });
        match product {
            Some(Factor::Size(bytes)) if bytes > VALUE as u64 => {
                Err(exceeded("bytes of a value", VALUE as u64))
            }
            Some(Factor::Size(bytes)) => made(bytes),
            _ => Ok(()),
        }
    });
    for name in ["eq", "equalto", "==", "ne", "!=", "in"] {
        environment.add_test(
            name,
            move |state: &State, value: &Value, other: &Value| -> Result<bool, Error> {
                written(value)?;
                written(other)?;
                Ok(match name {
                    "ne" | "!=" => value != other,
                    "in" => tests::is_in(state, value, other)?,
                    _ => value == other,
                })
            },
        );
    }
    environment.add_function(TICK, || tick().map(|()| Value::from(())));
    // The module `filters` adds others, in the same way.
    for (name, function) in [
        ("batch", Value::from_function(filters::batch)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("chain", Value::from_function(filters::chain)),
        ("format", Value::from_function(filters::format)),
        ("groupby", Value::from_function(filters::groupby)),
        ("join", Value::from_function(filters::join)),
        ("lines", Value::from_function(filters::lines)),
        ("list", Value::from_function(filters::list)),
        ("lower", Value::from_function(filters::lower)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("pprint", Value::from_function(filters::pprint)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("reverse", Value::from_function(filters::reverse)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("slice", Value::from_function(filters::slice)),
        ("split", Value::from_function(filters::split)),
        ("sum", Value::from_function(filters::sum)),
        ("title", Value::from_function(filters::title)),
        ("trim", Value::from_function(filters::trim)),
        ("upper", Value::from_function(filters::upper)),
        ("zip", Value::from_function(filters::zip)),
    ] {
        environment.add_filter(name, move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            let arguments = arguments.into_values();
            bounded(name, &arguments, || function.call(state, &arguments))
        });
    }
}

/// Renders under the limits of time and printed text.
pub(super) fn rendering<T>(render: impl FnOnce() -> T) -> T {
    /// Also where the engine panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            RENDERING.set(None);
        }
    }
    let (end, product) = (Instant::now() + TIME, Factor::Number(1));
    let fresh = Rendering { end, printed: 0, made: 0, factors: Vec::new(), product };
    RENDERING.set(Some(fresh));
    let _end = End;
    render()
}

fn with<T>(change: impl FnOnce(&mut Rendering) -> T) -> Option<T> {
    RENDERING.with_borrow_mut(|rendering| rendering.as_mut().map(change))
}

/// Checks the time.
fn tick() -> Result<(), Error> {
    match with(|rendering| rendering.end) {
        Some(end) if Instant::now() > end => Err(exceeded("seconds", TIME.as_secs())),
        _ => Ok(()),
    }
}

/// Adds to what has been made.
fn made(bytes: u64) -> Result<(), Error> {
    let made = with(|rendering| {
        rendering.made = rendering.made.saturating_add(bytes);
        rendering.made
    });
    if made > Some(MADE) { Err(exceeded("bytes of values", MADE)) } else { Ok(()) }
}

/// Checks what is printed, also into variables.
pub(super) fn printed(value: &Value) -> Result<(), Error> {
    tick()?;
    let bytes = weigh(value)? as u64;
    let printed = with(|rendering| {
        rendering.printed = rendering.printed.saturating_add(bytes);
        rendering.printed
    });
    if printed > Some(OUTPUT) { Err(exceeded("bytes of text", OUTPUT)) } else { Ok(()) }
}

/// Checks a value that becomes text as a whole.
pub(super) fn written(value: &Value) -> Result<(), Error> {
    tick()?;
    weigh(value).map(drop)
}

/// Calls a filter or method that makes a value out of these arguments, the first of which is what it is called on, and checks
/// both sides of it.
pub(super) fn bounded(
    name: &str,
    arguments: &[Value],
    make: impl FnOnce() -> Result<Value, Error>,
) -> Result<Value, Error> {
    call(name, arguments)?;
    returned(make()?)
}

/// Checks the arguments of a filter or method that makes a value out of them; the first is what it is called on.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<(), Error> {
    tick()?;
    let mut bytes = 0_usize;
    for argument in arguments {
        bytes = bytes.saturating_add(weigh(argument)?);
    }
    let text = |index: usize| arguments.get(index).and_then(Value::as_str).unwrap_or("");
    let number = |index: usize| arguments.get(index).and_then(|value| usize::try_from(value.clone()).ok());
    bytes = match name {
        "replace" if text(1).is_empty() => (text(0).len() + 1).saturating_mul(text(2).len() + 1),
        "replace" => text(0).matches(text(1)).count().saturating_mul(text(2).len()).saturating_add(bytes),
        // As a filter it is called on the list, as a method on the text between.
        "join" => {
            let (between, list) = match arguments.first().and_then(Value::as_str) {
                Some(between) if arguments.len() > 1 => (between.len(), &arguments[1]),
                _ => (text(1).len(), &arguments[0]),
            };
            list.len().unwrap_or(0).saturating_mul(between).saturating_add(bytes)
        }
        "indent" => {
            let widths = arguments[1..].iter().filter_map(|value| {
                let named = || value.get_attr("width").ok().and_then(|width| usize::try_from(width).ok());
                usize::try_from(value.clone()).ok().or_else(named)
            });
            let width = widths.max().unwrap_or(4);
            (text(0).lines().count() + 1).saturating_mul(width).saturating_add(bytes)
        }
        "format" => {
            let digits = text(0).split(|character: char| !character.is_ascii_digit());
            let written = digits.filter(|digits| !digits.is_empty());
            let mut widths: Vec<usize> = written.map(|digits| digits.parse().unwrap_or(usize::MAX)).collect();
            // A star or a field in a field takes its width from the arguments.
            let given = arguments.iter().skip(1).filter_map(|value| i64::try_from(value.clone()).ok());
            let given: Vec<usize> = given.map(|number| number.unsigned_abs() as usize).collect();
            let fields = text(0).replace("{{", "");
            let is_nested = fields.split('}').any(|field| field.matches('{').count() > 1);
            if is_nested || text(0).contains('*') {
                widths.extend(given);
            }
            if widths.iter().any(|&width| width > WIDTH) {
                return Err(exceeded("characters of a field", WIDTH as u64));
            }
            let fields = text(0).matches(['{', '%']).count();
            let padded = widths.iter().sum::<usize>().saturating_mul(4);
            fields.saturating_mul(bytes.saturating_sub(text(0).len()) + 64).saturating_add(bytes + padded)
        }
        "batch" | "slice" => number(1)
            .unwrap_or(0)
            .saturating_mul(2 * ITEM as usize)
            .saturating_add(of_items(arguments, bytes)),
        "chain" | "groupby" | "list" | "map" | "max" | "min" | "reject" | "rejectattr" | "select"
        | "selectattr" | "sort" | "sum" | "unique" | "zip" => of_items(arguments, bytes),
        "split" | "rsplit" | "lines" | "splitlines" => {
            let parts = match text(1) {
                "" => text(0).chars().filter(|character| character.is_whitespace()).count(),
                separator => text(0).matches(separator).count(),
            };
            (parts + 1).saturating_mul(ITEM as usize).saturating_add(bytes)
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            number(1).unwrap_or(0).saturating_mul(4).saturating_add(bytes)
        }
        _ => bytes,
    };
    sized(bytes)
}

/// The same bytes where texts are walked through, whose characters become items.
fn of_items(arguments: &[Value], bytes: usize) -> usize {
    let of_text = |value: &Value| value.as_str().map_or(0, |text| text.len().saturating_mul(ITEM as usize));
    arguments.iter().map(of_text).fold(bytes, usize::saturating_add)
}

/// Adds what a filter or method has made to what has been made.
pub(super) fn returned(value: Value) -> Result<Value, Error> {
    kept(&value, ITEM)?;
    Ok(value)
}

/// Checks the size of a value that is about to be made.
pub(super) fn sized(bytes: usize) -> Result<(), Error> {
    fits(bytes)?;
    made(bytes as u64)
}

/// Checks the size of a value that is being made.
pub(super) fn fits(bytes: usize) -> Result<(), Error> {
    if bytes > VALUE { Err(exceeded("bytes of a value", VALUE as u64)) } else { Ok(()) }
}

/// Checks a value that is kept or added: texts by their bytes, all else by its items, whatever they hold. So many bytes have
/// been made for each of them.
pub(super) fn kept(value: &Value, of_item: u64) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        if text.len() > VALUE {
            return Err(exceeded("bytes of a value", VALUE as u64));
        }
        return made(text.len() as u64);
    }
    let items = match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => value.len().unwrap_or(0),
        _ => 0,
    };
    if items > ITEMS { Err(exceeded("items of a list", ITEMS as u64)) } else { made(items as u64 * of_item) }
}

/// About how many bytes a value has, with all that it holds, each time that it holds it.
fn weigh(value: &Value) -> Result<usize, Error> {
    let mut left = VALUE;
    weigh_within(value, &mut left, 0)?;
    Ok(VALUE - left)
}

fn weigh_within(value: &Value, left: &mut usize, depth: usize) -> Result<(), Error> {
    /// As deep as JSON may be nested, twice.
    const DEPTH: usize = 256;
    let own = value.as_str().map_or(0, str::len) + if depth == 0 { 2 } else { ITEM as usize };
    match left.checked_sub(own) {
        Some(less) if depth < DEPTH => *left = less,
        _ => return Err(exceeded("bytes of a value", VALUE as u64)),
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                weigh_within(&item, left, depth + 1)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                weigh_within(&key, left, depth + 1)?;
                weigh_within(&value.get_item(&key)?, left, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn exceeded(what: &'static str, limit: u64) -> Error {
    let source = Exceeded { what, limit };
    Error::new(ErrorKind::InvalidOperation, source.to_string()).with_source(source)
}

/// A prompt on its way, which ends where it is too long.
#[derive(Default)]
pub(super) struct Output(Vec<u8>);

impl Output {
    /// The prompt.
    pub(super) fn into_text(self) -> String {
        // The engine writes text.
        String::from_utf8(self.0).unwrap_or_default()
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > OUTPUT {
            return Err(io::Error::other(Exceeded { what: "bytes of text", limit: OUTPUT }));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

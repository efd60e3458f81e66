//! Macros that the layouts of this crate share.
//!
//! Owns nothing at run time. Invariant: a type made with `wire_enum!` names each value once, and converting to the
//! wire value and back gives the same variant.

/// Declares an enumeration whose values are fixed by a specification, with conversions from and to the wire value
/// and the specification's words as `Display`.
macro_rules! wire_enum {
    (
        $(#[$outer:meta])*
        pub enum $name:ident: $repr:ty {
            $($(#[$inner:meta])* $variant:ident = $value:literal, $text:literal;)+
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name {
            $(#[doc = $text] $(#[$inner])* $variant = $value,)+
        }

        impl $name {
            /// Every value that is named here, in the order of the specification.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The variant of a wire value; `None` when the value is reserved, vendor specific or not known here.
            // A table where it is used, and no call, several times with each command.
            #[inline(always)]
            #[must_use]
            pub const fn from_value(value: $repr) -> Option<Self> {
                match value {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The wire value.
            #[must_use]
            pub const fn value(self) -> $repr {
                self as $repr
            }

            /// The name that the specification gives this value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

/// Asserts, when compiled, the size of a layout and the offsets of its key fields.
macro_rules! assert_layout {
    ($type:ty, $size:expr $(, $field:ident @ $offset:expr)* $(,)?) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        const _: () = assert!(core::mem::align_of::<$type>() == 1);
        $(const _: () = assert!(core::mem::offset_of!($type, $field) == $offset);)*
    };
}

/// Declares a value of named bit fields: a controller property, a feature's dword, a result.
///
/// Each flag gives `name() -> bool` and `with_name(bool)`; each field of bits `low .. low + width` gives
/// `name() -> type` and `with_name(type)`, where bits that do not fit are dropped.
macro_rules! bit_fields {
    (
        $(#[$outer:meta])*
        pub struct $name:ident: $repr:ty {
            flags { $($(#[$flag_doc:meta])* $flag:ident, $with_flag:ident = $bit:literal;)* }
            fields { $($(#[$field_doc:meta])* $field:ident, $with_field:ident: $type:ty = $low:literal, $width:literal;)* }
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
        pub struct $name($repr);

        impl $name {
            /// Takes all bits, reserved ones too.
            #[must_use]
            pub const fn from_bits(bits: $repr) -> Self {
                Self(bits)
            }

            /// All bits.
            #[must_use]
            pub const fn bits(self) -> $repr {
                self.0
            }

            $(
                $(#[$flag_doc])*
                #[must_use]
                pub const fn $flag(self) -> bool {
                    self.0 & (1 << $bit) != 0
                }

                #[doc = concat!("The same value with `", stringify!($flag), "` set or cleared.")]
                #[must_use]
                pub const fn $with_flag(self, on: bool) -> Self {
                    Self((self.0 & !(1 << $bit)) | ((on as $repr) << $bit))
                }
            )*

            $(
                $(#[$field_doc])*
                #[must_use]
                pub const fn $field(self) -> $type {
                    ((self.0 >> $low) & (((1 as $repr) << $width) - 1)) as $type
                }

                #[doc = concat!("The same value with another `", stringify!($field), "`.")]
                #[must_use]
                pub const fn $with_field(self, value: $type) -> Self {
                    let mask: $repr = (((1 as $repr) << $width) - 1) << $low;
                    Self((self.0 & !mask) | (((value as $repr) << $low) & mask))
                }
            )*
        }
    };
}

/// Puts text into an ASCII field padded with spaces (Base 1.4.2, "ASCII string"): characters that are not printable
/// ASCII become `?`, what does not fit is cut.
pub(crate) fn put_ascii(field: &mut [u8], text: &str) {
    field.fill(b' ');
    for (to, from) in field.iter_mut().zip(text.chars()) {
        *to = if matches!(from, ' '..='~') { from as u8 } else { b'?' };
    }
}

/// The text of an ASCII field without its padding of spaces or NULs; empty when it is not text.
pub(crate) fn get_ascii(field: &[u8]) -> &str {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    core::str::from_utf8(&field[..end]).unwrap_or_default().trim_end_matches(' ')
}

pub(crate) use assert_layout;
pub(crate) use bit_fields;
pub(crate) use wire_enum;

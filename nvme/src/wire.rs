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

pub(crate) use assert_layout;
pub(crate) use wire_enum;

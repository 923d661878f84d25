//! OK, ERR, EOF and small result sets: read and written.

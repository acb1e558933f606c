//! How real processors write page-table entries.

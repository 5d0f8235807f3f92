//! Whole rounds through the disk's threads.

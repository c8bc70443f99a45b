/* Files and folders for one test, such as the kernel has in /proc and /sys. Failures end the
 * test. */
#ifndef VP_TESTS_TEMP_TREE_H
#define VP_TESTS_TEMP_TREE_H

/* An empty folder; 0, or -1 as a setup function returns it. */
int temp_tree_make(char top[static 64]);
/* A file below `root` with `text`, or without it a folder, with all that is above it. */
void temp_tree_put(const char *root, const char *path, const char *text);
/* A symbolic link below `root` to `target`, which is taken as it stands. */
void temp_tree_link(const char *root, const char *path, const char *target);
/* With all that is in it; 0 or -1. */
int temp_tree_remove(const char *top);

#endif

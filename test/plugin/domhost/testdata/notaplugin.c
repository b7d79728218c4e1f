/* notaplugin.c - a library without the functions of a tls plugin */
int answer(void);

int answer(void)
{
	return 42;
}

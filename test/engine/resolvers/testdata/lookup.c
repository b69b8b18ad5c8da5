// lookup asks the resolver of the C library that it is linked with, by
// getaddrinfo and res_query, and prints what it says. ../lookup is the same for
// Go, and has the manual. A failure is !nxdomain, !nodata or !failure.
#define _GNU_SOURCE // for EAI_NODATA
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void end(int sig) {
	(void)sig;
	_exit(0);
}

static void addresses(int family, const char *name) {
	struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *list, *a;
	int err = getaddrinfo(name, NULL, &hints, &list);
	switch (err) {
	case 0:
		break;
	case EAI_NONAME:
		printf(" !nxdomain");
		return;
#ifdef EAI_NODATA // musl's headers have it or not
	case EAI_NODATA:
		printf(" !nodata");
		return;
#endif
	default:
		fprintf(stderr, "lookup: %s: %s\n", name, gai_strerror(err));
		printf(" !failure");
		return;
	}
	for (a = list; a; a = a->ai_next) {
		char text[INET6_ADDRSTRLEN];
		const void *addr = a->ai_family == AF_INET
			? (void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
			: (void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
		printf(" %s", inet_ntop(a->ai_family, addr, text, sizeof text));
	}
	freeaddrinfo(list);
}

static unsigned u16(const unsigned char *p) { return p[0] << 8 | p[1]; }

// records prints the answers of a type; nothing if the message is malformed.
static void records(const unsigned char *msg, const unsigned char *eom, int type) {
	const unsigned char *p = msg + 12;
	int n, count = u16(msg + 6);
	if ((n = dn_skipname(p, eom)) < 0)
		return;
	for (p += n + 4; count > 0; count--) {
		if ((n = dn_skipname(p, eom)) < 0 || p + n + 10 > eom)
			return;
		p += n;
		int length = u16(p + 8), found = u16(p);
		p += 10;
		if (p + length > eom)
			return;
		if (found == type && type == 33) {
			char target[256];
			if (length < 7 || dn_expand(msg, eom, p + 6, target, sizeof target) < 0)
				return;
			printf(" %s:%u", target, u16(p + 4));
		} else if (found == type) {
			const unsigned char *s = p;
			putchar(' ');
			for (; s < p + length && s + 1 + *s <= p + length; s += 1 + *s)
				fwrite(s + 1, 1, *s, stdout);
		}
		p += length;
	}
}

static void query(int type, const char *name) {
	static unsigned char msg[65535];
	int n = res_query(name, 1, type, msg, sizeof msg);
	if (n >= 12)
		records(msg, msg + n, type);
	else if (h_errno == HOST_NOT_FOUND)
		printf(" !nxdomain");
	else if (h_errno == NO_DATA)
		printf(" !nodata");
	else
		printf(" !failure");
}

int main(int argc, char **argv) {
	if (argc < 2 || strcmp(argv[1], "wait") == 0) {
		signal(SIGTERM, end);
		puts("ready");
		fflush(stdout);
		for (;;)
			pause();
	}
	for (int i = 1; i < argc; i++) {
		const char *name = strchr(argv[i], '/');
		if (!name)
			return 2;
		printf("%s", argv[i]);
		switch (argv[i][0] == 'a' ? name - argv[i] : argv[i][0]) {
		case 1: addresses(AF_INET, name + 1); break;
		case 4: addresses(argv[i][1] == 'a' ? AF_INET6 : AF_UNSPEC, name + 1); break;
		case 's': query(33, name + 1); break;
		case 't': query(16, name + 1); break;
		default: return 2;
		}
		putchar('\n');
	}
	return 0;
}

/* What wine 8 lacks and programs in Rust need, as a library in wine's own folder. It hides what wine
   has not, nothing of ours.

   ProcessPrng is where Rust's standard library takes random bytes from: without it every program ends
   at once with status 53 and no word. Since every program loads this library, it also answers two calls
   on sockets that wine refuses and without which QUIC gives up. */
#include <winsock2.h>
#include <windows.h>
#include <string.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG); /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T length)
{
    const SIZE_T most = 1 << 20;
    for (SIZE_T at = 0; at < length;) {
        ULONG part = (ULONG)(length - at < most ? length - at : most);
        if (!SystemFunction036(bytes + at, part))
            return FALSE;
        at += part;
    }
    return TRUE;
}

/* From ws2tcpip.h and ws2ipdef.h, which this mingw does not have all of. */
enum { option_v6only = 27, option_receive_ecn = 50, level_v6 = 41 };

static int (WSAAPI *wine_setsockopt)(SOCKET, int, int, const char *, int);
static int (WSAAPI *wine_getsockopt)(SOCKET, int, int, char *, int *);

/* No marks of congestion arrive then, and QUIC does without. */
static int WSAAPI answer_setsockopt(SOCKET socket, int level, int option, const char *value, int length)
{
    int result = wine_setsockopt(socket, level, option, value, length);
    if (result != 0 && option == option_receive_ecn && (level == IPPROTO_IP || level == level_v6) &&
        WSAGetLastError() == WSAENOPROTOOPT) {
        WSASetLastError(0);
        return 0;
    }
    return result;
}

/* Windows answers for a socket of IPv4 as well. */
static int WSAAPI answer_getsockopt(SOCKET socket, int level, int option, char *value, int *length)
{
    int room = length ? *length : 0;
    int result = wine_getsockopt(socket, level, option, value, length);
    if (result != 0 && option == option_v6only && level == level_v6 && room >= (int)sizeof(DWORD) &&
        WSAGetLastError() == WSAEOPNOTSUPP) {
        *(DWORD *)value = 1;
        *length = sizeof(DWORD);
        WSASetLastError(0);
        return 0;
    }
    return result;
}

/* Lets the program's own imports of a function of ws2_32.dll lead here instead. Returns wine's. */
static void *divert(const char *name, void *answer)
{
    HMODULE sockets = GetModuleHandleW(L"ws2_32.dll");
    void *theirs = sockets ? (void *)(UINT_PTR)GetProcAddress(sockets, name) : NULL;
    BYTE *program = (BYTE *)GetModuleHandleW(NULL);
    IMAGE_NT_HEADERS *headers = (IMAGE_NT_HEADERS *)(program + ((IMAGE_DOS_HEADER *)program)->e_lfanew);
    DWORD imports = headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT].VirtualAddress;
    if (theirs == NULL || imports == 0)
        return theirs;
    for (IMAGE_IMPORT_DESCRIPTOR *library = (void *)(program + imports); library->Name != 0; library++) {
        if (_stricmp((char *)program + library->Name, "ws2_32.dll") != 0)
            continue;
        for (void **entry = (void **)(program + library->FirstThunk); *entry != NULL; entry++) {
            DWORD before;
            if (*entry == theirs && VirtualProtect(entry, sizeof *entry, PAGE_READWRITE, &before)) {
                *entry = answer;
                VirtualProtect(entry, sizeof *entry, before, &before);
            }
        }
    }
    return theirs;
}

BOOL WINAPI DllMain(HINSTANCE library, DWORD reason, void *reserved)
{
    (void)library;
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
        wine_setsockopt = divert("setsockopt", (void *)(UINT_PTR)answer_setsockopt);
        wine_getsockopt = divert("getsockopt", (void *)(UINT_PTR)answer_getsockopt);
    }
    return TRUE;
}

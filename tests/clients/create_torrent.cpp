// Makes a torrent with libtorrent's C++ interface, which, unlike the Python one, can be told how many
// threads hash.
//
//   create_torrent PATH OUT v1|v2|hybrid PIECE_LENGTH THREADS
//
// A piece length of 0 leaves the choice to libtorrent.

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <libtorrent/bencode.hpp>
#include <libtorrent/create_torrent.hpp>
#include <libtorrent/error_code.hpp>
#include <libtorrent/settings_pack.hpp>

int main(int argc, char* argv[])
{
	if (argc != 6)
	{
		std::cerr << "usage: create_torrent PATH OUT v1|v2|hybrid PIECE_LENGTH THREADS\n";
		return 2;
	}
	std::string const path = argv[1];
	std::string const format = argv[3];

	lt::file_storage files;
	lt::add_files(files, path);

	lt::create_flags_t flags{};
	if (format == "v1") flags |= lt::create_torrent::v1_only;
	else if (format == "v2") flags |= lt::create_torrent::v2_only;

	lt::create_torrent torrent(files, std::atoi(argv[4]), flags);

	lt::settings_pack settings;
	settings.set_int(lt::settings_pack::hashing_threads, std::atoi(argv[5]));

	lt::error_code error;
	std::string const parent = path.substr(0, path.find_last_of('/'));
	lt::set_piece_hashes(torrent, parent, settings, [](lt::piece_index_t) {}, error);
	if (error)
	{
		std::cerr << path << ": " << error.message() << '\n';
		return 1;
	}

	std::vector<char> bytes;
	lt::bencode(std::back_inserter(bytes), torrent.generate());
	std::ofstream out(argv[2], std::ios::binary);
	out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
	return out ? 0 : 1;
}

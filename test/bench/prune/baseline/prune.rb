#!/usr/bin/env ruby
# frozen_string_literal: true

# What main.go beside it does, as scripts of this kind do it in Ruby: the file has
# the IDs that live, one in a line; the last argument, if it is --scan, means only to
# look. Never run it on a host.
#
#   ruby prune.rb /tmp/tree alive.txt [--scan]

require 'fileutils'
require 'set'

root, alive, scan = ARGV
lives = File.readlines(alive, chomp: true).to_set

dead = Dir.glob(File.join(root, '**', 'containers', '*')).reject do |path|
  lives.include?(File.basename(path)) || !File.directory?(path)
end
dead.each { |path| FileUtils.rm_rf(path) } unless scan == '--scan'
puts dead.size

# A draft for a tap: `url` and `sha256` are a release's. What is installed is pinned by the
# release's own constraints, in an environment that nothing else shares.
class Portico < Formula
  include Language::Python::Virtualenv

  desc "OpenAI-compatible inference server for Apple's MLX"
  homepage "https://example.com/portico"
  url "https://example.com/portico/portico_mlx-0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "MIT"

  depends_on arch: :arm64
  depends_on macos: :sonoma # the oldest that MLX's wheels are made for
  depends_on "python@3.11"

  def install
    virtualenv_create(libexec, "python3.11", system_site_packages: false)
    system "python3.11", "-m", "pip", "--python=#{libexec}/bin/python", "install",
           "--no-cache-dir", "--constraint", "constraints.txt", "."
    bin.install_symlink libexec/"bin/portico"
  end

  # As `portico service install` would have it; of the two, take one.
  service do
    run [opt_bin/"portico", "serve", "--config", etc/"portico.toml"]
    keep_alive successful_exit: false
    process_type :interactive
    working_dir var
    log_path var/"log/portico.log"
    error_log_path var/"log/portico.log"
  end

  def post_install
    settings = etc/"portico.toml"
    settings.write "# Settings of Portico; the defaults will do.\n" unless settings.exist?
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/portico version")
    assert_match "portico/demo", shell_output("#{bin}/portico models --json")
  end
end

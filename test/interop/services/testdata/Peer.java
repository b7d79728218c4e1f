// Peer.java - Java's TLS for a test: java Peer.java ROLE PORT CA IDENTITY
//
// ROLE is server or client, CA a PEM file, IDENTITY a PKCS #12 file with the password "secret", or
// "-". The server takes one client at a time, and wants a certificate. Each end sends one line:
// what the handshake has agreed on, and who the other is.
import java.io.*;
import java.net.InetAddress;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.*;

public class Peer {
    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[1]);
        SSLContext context = context(args[2], args[3]);
        if (args[0].equals("client")) {
            SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket("localhost", port);
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            parameters.setApplicationProtocols(new String[] {"h2", "http/1.1"});
            socket.setSSLParameters(parameters);
            System.out.println(exchange(socket));
            return;
        }
        SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory()
            .createServerSocket(port, 5, InetAddress.getByName("127.0.0.1"));
        listener.setNeedClientAuth(true);
        while (true) {
            try (SSLSocket socket = (SSLSocket) listener.accept()) {
                SSLParameters parameters = socket.getSSLParameters();
                parameters.setApplicationProtocols(new String[] {"http/1.1", "h2"});
                socket.setSSLParameters(parameters);
                exchange(socket);
            } catch (IOException e) {
                System.err.println(e);
            }
        }
    }

    // exchange says what this end knows, and gives what the other end says.
    static String exchange(SSLSocket socket) throws IOException {
        socket.startHandshake();
        SSLSession session = socket.getSession();
        String peer;
        try {
            peer = session.getPeerPrincipal().getName();
        } catch (SSLPeerUnverifiedException e) {
            peer = "nobody";
        }
        OutputStream out = socket.getOutputStream();
        out.write((session.getProtocol() + " " + socket.getApplicationProtocol() + " " + peer + "\n").getBytes());
        return new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
    }

    static SSLContext context(String ca, String identity) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (InputStream in = Files.newInputStream(Path.of(ca))) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        KeyManager[] keys = null;
        if (!identity.equals("-")) {
            KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            factory.init(KeyStore.getInstance(new File(identity), "secret".toCharArray()), "secret".toCharArray());
            keys = factory.getKeyManagers();
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys, trust.getTrustManagers(), null);
        return context;
    }
}

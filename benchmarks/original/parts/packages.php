
%packages --nobase
@core
man
openssh-clients
%end

%post
mkdir -p /root/.ssh
chmod -R u+rwX,go-rwx /root/.ssh
%end
